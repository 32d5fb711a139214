"""The YAML that ``serve deploy`` takes, built as Serve's controller would build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import serve_apps.vllm
from clustereval.probe.serve_llm.server import ObservedServer

pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("own_ray")]

FOLDER = Path(serve_apps.vllm.__file__).parent


def built(name: str) -> Any:
    """The model's deployment of an application in this file: neither Ray nor vLLM is started."""
    from ray.serve._private.build_app import build_app
    from ray.serve.schema import ServeDeploySchema

    from serve_apps.vllm.app import build

    config = ServeDeploySchema.model_validate(yaml.safe_load((FOLDER / name).read_text("utf-8")))
    (application,) = config.applications
    deployments = build_app(build(application.args), name=application.name).deployments
    (model,) = [d for d in deployments if ":" in d.name]
    return model


@pytest.mark.parametrize(
    ("name", "model", "bundle", "most", "target", "failed_starts"),
    [
        ("serve.yaml", "qwen-7b", {"GPU": 1, "CPU": 1}, 8, 16, 3),
        ("serve-cpu.yaml", "clustereval-records", {"GPU": 0, "CPU": 2}, 2, 4, 1),
    ],
)
def test_a_yaml_file_becomes_replicas_that_scale_on_what_they_need(
    name: str, model: str, bundle: dict[str, float], most: int, target: float, failed_starts: int
) -> None:
    """Each replica asks for its GPU or its CPUs in one bundle; the autoscaler has bounds and a
    target that is one; the server and its router are observed."""
    deployment = built(name)
    replica, options = deployment._replica_config, deployment._deployment_config
    assert deployment.name == f"PlantedServer:{model}"
    assert replica.placement_group_bundles == [bundle]
    scaling = options.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, most)
    assert scaling.target_ongoing_requests == target
    assert options.max_constructor_retry_count == failed_starts
    assert issubclass(replica.deployment_def, ObservedServer)
    router = options.request_router_config.request_router_class
    assert router.startswith("clustereval.probe.serve_llm.routers:")


def test_the_engine_on_a_gpu_is_vllms_own() -> None:
    """What is replaced on a small machine, one process and short contexts, stays there."""
    config = built("serve.yaml")._replica_config.init_kwargs["llm_config"]
    assert config.engine_kwargs["max_model_len"] == 16384
    assert config.engine_kwargs["tool_call_parser"] == "hermes"
    assert config.engine_kwargs["tensor_parallel_size"] == 1
    assert "RAYLLM_VLLM_ENGINE_CLS" not in config.runtime_env["env_vars"]
    assert config.experimental_configs["stream_batching_interval_ms"] == 0
