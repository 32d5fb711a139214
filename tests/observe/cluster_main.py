"""A local Ray Serve cluster of two nodes with two applications, until its standard input ends.

Run as a program by the cluster tests, with HOME set to an empty folder: Ray writes its token there.
Prints one JSON line with the addresses once everything is ready.
"""

# No postponed annotations: FastAPI cannot resolve them in a class that Ray pickles by value.
import asyncio
import json
import os
import socket
import sys
from typing import Any

import ray
from fastapi import FastAPI, Request
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.schema import LoggingConfig

app = FastAPI()


def chat_events(replica: str, held: int) -> list[dict[str, Any]]:
    text = json.dumps({"replica": replica, "held": held})
    return [
        {"choices": [{"delta": {"content": text}}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 1}},
    ]


@serve.deployment(num_replicas=2, max_ongoing_requests=50, max_replicas_per_node=1)
@serve.ingress(app)
class Chat:
    """Answers with its own replica id, and how many other requests it held."""

    def __init__(self) -> None:
        self._held = 0

    @app.get("/models")
    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "echo"}]}

    @app.post("/chat/completions")
    async def chat(self, request: Request) -> Any:
        from starlette.responses import StreamingResponse

        held, self._held = self._held, self._held + 1
        replica = serve.get_replica_context().replica_id.unique_id

        async def stream() -> Any:
            try:
                await asyncio.sleep(0.1)
                for event in chat_events(replica, held):
                    yield f"data: {json.dumps(event)}\n\n"
                yield "data: [DONE]\n\n"
            finally:
                self._held -= 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.post("/die")
    async def die(self) -> None:
        os._exit(1)


JSON_LOGS = LoggingConfig(encoding="JSON")


@serve.deployment(num_replicas=2, logging_config=JSON_LOGS)
class Engine:
    async def answer(self) -> str:
        return str(serve.get_replica_context().replica_id.unique_id)


@serve.deployment(logging_config=JSON_LOGS)
class Ingress:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def __call__(self, request: Request) -> str:
        return str(await self._engine.answer.remote())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(folder: str) -> None:
    dashboard, http = free_port(), free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": dashboard,
            "temp_dir": folder,
        },
    )
    cluster.add_node(num_cpus=8)
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": http})
    serve.run(Chat.bind(), name="chat", route_prefix="/v1")
    serve.run(Ingress.bind(Engine.bind()), name="chain", route_prefix="/chain")
    addresses = {
        "dashboard": f"http://{cluster.webui_url}",
        "url": f"http://127.0.0.1:{http}/v1",
        "chain": f"http://127.0.0.1:{http}/chain",
    }
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
