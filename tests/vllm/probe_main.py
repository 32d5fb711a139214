"""A local cluster with an observed Ray Serve LLM app, and a foreign ingress to the same server.

Run as a program by the tests; prints one JSON line when everything answers.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from serve_apps.cluster import Launch, deploy, run_app, start_cluster
from serve_apps.vllm.settings import CPU, LOCAL_ENVIRONMENT
from tests.vllm import tiny_model

MODEL = "tiny"
SERVER = f"TheirServer:{MODEL}"


def start(launch: Launch) -> dict[str, Any]:
    from ray import serve
    from ray.serve.llm import build_openai_app

    from clustereval.probe.serve_llm import observe_app
    from serve_apps.vllm.app import llm_config
    from serve_apps.vllm.faults import Planted
    from tests.vllm.their_app import TheirServer

    folder = Path(launch.temp_dir).parent / "model"
    tiny_model.write(folder)
    settings = CPU.override({"model": {"source": str(folder), "name": MODEL}})
    planted = Planted({})
    config = llm_config(settings, planted)
    config.server_cls = TheirServer
    config.engine_kwargs.pop("worker_extension_cls")
    deployment = config.deployment_config
    del deployment["autoscaling_config"], deployment["user_config"]
    deployment |= {
        "num_replicas": 2,
        # First in, first out, and blind to pins.
        "request_router_config": {
            "request_router_class": "ray.serve.experimental.round_robin_router.RoundRobinRouter"
        },
    }
    args = {
        "llm_configs": [config],
        "ingress_cls_config": {
            "ingress_cls": "tests.vllm.their_app:TheirIngress",
            "ingress_extra_kwargs": {"greeting": "hello"},
        },
        "ingress_deployment_config": {"num_replicas": 1},
    }
    cluster = start_cluster(launch)
    deploy(build_openai_app(observe_app(args)), "observed", settings.app.start_s)
    handle = serve.get_deployment_handle(SERVER, "observed")
    deploy(foreign(config, handle), "foreign", settings.app.start_s, "/foreign")
    return {
        "url": f"http://127.0.0.1:{cluster.port}/v1",
        "foreign": f"http://127.0.0.1:{cluster.port}/foreign/v1",
        "dashboard": cluster.dashboard,
        "model": MODEL,
        "direct": asyncio.run(called_directly(handle)),
        "their_own": handle.their_own.remote().result(),
    }


def foreign(config: Any, handle: Any) -> Any:
    """An ingress that knows nothing of the probe, in front of the same server."""
    from ray import serve
    from ray.llm._internal.serve.core.configs.openai_api_models import to_model_metadata
    from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress

    return serve.deployment(make_fastapi_ingress(OpenAiIngress)).bind(
        llm_deployments={MODEL: handle}, model_cards={MODEL: to_model_metadata(MODEL, config)}
    )


async def called_directly(handle: Any) -> list[str]:
    """The kinds of the items that a direct call of the handle gets."""
    from ray.llm._internal.serve.core.protocol import RawRequestInfo
    from ray.serve.llm.openai_api_models import ChatCompletionRequest

    request = ChatCompletionRequest(
        model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=2, stream=True
    )
    info = RawRequestInfo(headers={"x-tenant": "acme"})
    items = handle.options(stream=True).chat.remote(request, info)
    return sorted({type(item).__name__ async for item in items})


if __name__ == "__main__":
    sys.exit(run_app(sys.argv[1:], start, LOCAL_ENVIRONMENT))
