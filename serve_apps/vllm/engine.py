"""What of Ray Serve LLM's engine is replaced on one small machine: fewer processes per replica.

Serve LLM always gives vLLM on a CPU its multi-process executor: a worker process beside the engine
process, for one model on one device. That worker waits for work in a busy loop (a second after each
step), so two replicas on two cores leave none for the traffic, and it imports everything once more.
Here the engine process does the work itself, by vLLM's own single-process executor.

It is chosen by the environment variable with which Serve LLM lets its engine be replaced. What is
private of Ray is one method, whose arguments are passed on as they are; where it is not there, the
replica refuses to start, and says so.
"""

from __future__ import annotations

from typing import Any, Final

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

from serve_apps.vllm.hooks import require_hook

SINGLE_PROCESS: Final = "uni"


class SingleProcessEngine(VLLMEngine):
    """For one CPU device per replica."""

    def __init__(self, *args: Any, **kwargs: Any):
        require_hook(
            VLLMEngine,
            "_start_async_llm_engine",
            called_by=("start",),
            takes=(),
            lost="one process per engine",
        )
        super().__init__(*args, **kwargs)

    def _start_async_llm_engine(self, engine_args: Any, engine_config: Any, *rest: Any) -> Any:
        engine_config.parallel_config.distributed_executor_backend = SINGLE_PROCESS
        return super()._start_async_llm_engine(engine_args, engine_config, *rest)


class LocalModel(CallbackBase):
    """For a model that lies in a folder: no task that would download it to each node first.

    That task takes a process per replica, which imports all of vLLM to find nothing to do.
    """

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False
