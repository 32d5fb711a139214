"""From settings of Ray Serve LLM to those of an observed app, on fakes of Ray's own classes.

And the guard: what another version of Ray or vLLM may lack costs observation, never the app. With
the real ones: tests/vllm.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from ray.serve.config import RequestRouterConfig

from clustereval.probe import ray_private
from clustereval.probe.serve_llm import build_openai_app, observe_app, observe_llm
from clustereval.probe.serve_llm.ingress import ObservedIngress
from clustereval.probe.serve_llm.observe import DIRECT, PER_REQUEST
from clustereval.probe.serve_llm.routers import observed_path
from clustereval.probe.serve_llm.server import ObservedServer

ROUTERS = "ray.serve.experimental"


class FakeLLMServer:
    async def chat(self, request: Any, raw_request_info: Any = None) -> Any: ...

    async def completions(self, request: Any, raw_request_info: Any = None) -> Any: ...


class FakeOldLLMServer:
    """Of a version that did not pass headers on."""

    async def chat(self, request: Any) -> Any: ...

    async def completions(self, request: Any) -> Any: ...


class TheirServer(FakeLLMServer):
    """A user's own."""


class FakeOpenAiIngress:
    __module__ = "ray.fake"

    async def _get_response(
        self, *, body: Any, call_method: str, raw_request: Any = None
    ) -> AsyncIterator[Any]:
        yield None


class TheirIngress(FakeOpenAiIngress):
    __module__ = "their.app"


class FakeLLMConfig(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    model_id: str = "tiny"
    engine_kwargs: dict[str, Any] = Field(default_factory=dict)
    deployment_config: dict[str, Any] = Field(default_factory=dict)
    runtime_env: dict[str, Any] | None = None
    server_cls: Any = None
    _engine_config: Any = None


class FakeIngressClsConfig(BaseModel):
    ingress_cls: Any = FakeOpenAiIngress
    ingress_extra_kwargs: dict[str, Any] = Field(default_factory=dict)


class FakeLLMServingArgs(BaseModel):
    llm_configs: list[FakeLLMConfig]
    ingress_cls_config: FakeIngressClsConfig = Field(default_factory=FakeIngressClsConfig)
    ingress_deployment_config: dict[str, Any] = Field(default_factory=dict)


@dataclasses.dataclass
class FakeFrontendArgs:
    enable_prompt_tokens_details: bool = False
    enable_per_request_metrics: bool = False
    enable_force_include_usage: bool = False
    middleware: list[str] = dataclasses.field(default_factory=list)


@pytest.fixture(autouse=True)
def fake_ray_llm(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """Modules in the places where Ray and vLLM have theirs, whether these are installed or not."""
    contents: dict[str, dict[str, Any]] = {
        "ray.serve.llm": {"LLMServingArgs": FakeLLMServingArgs},
        "ray.serve.llm.deployment": {"LLMServer": FakeLLMServer},
        "ray.llm._internal.serve.core.server.llm_server": {"LLMServer": FakeLLMServer},
        "ray.llm._internal.serve.constants": {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": False},
        "vllm.entrypoints.launchers.cli_args": {"FrontendArgs": FakeFrontendArgs},
    }
    modules = {}
    for name, content in contents.items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update(content)
        monkeypatch.setitem(sys.modules, name, modules[name])
    ray_private._reported.clear()
    return modules


def test_one_call_observes_server_router_and_engine() -> None:
    """The given settings stay as they were, what Ray derived from them is not carried over."""
    given = FakeLLMConfig(deployment_config={"num_replicas": 2}, runtime_env={"env_vars": {}})
    given._engine_config = "derived"
    before = given.model_copy(deep=True)
    observed = observe_llm(given)
    assert given == before
    assert observed.engine_kwargs == PER_REQUEST
    assert issubclass(observed.server_cls, ObservedServer)
    assert issubclass(observed.server_cls, FakeLLMServer)
    assert observed._engine_config is None
    observed.runtime_env["env_vars"]["added"] = "by Ray"
    observed.deployment_config["added"] = "by Ray"
    observed.engine_kwargs["added"] = "by Ray"
    assert given == before


@pytest.mark.parametrize(
    ("ray", "vllm", "other"),
    [("2.60.3", "0.29.1", None), ("2.61.0", "0.29.0", "ray"), ("2.60.0", "0.30.0+cpu", "vllm")],
)
def test_another_version_of_the_same_shape_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ray: str,
    vllm: str,
    other: str | None,
) -> None:
    """Patches of the version that this was written for are not another one; the app runs on."""
    monkeypatch.setattr(ray_private, "_version", {"ray": ray, "vllm": vllm}.get)
    for _ in range(2):
        assert issubclass(observe_llm(FakeLLMConfig()).server_cls, ObservedServer)
    said = [r.getMessage() for r in caplog.records if "another version" in r.getMessage()]
    assert len(said) == (other is not None)
    assert all(f"another version of {other}. Expected: ray 2.60" in line for line in said)


def test_what_the_user_set_stays() -> None:
    """Options of the engine, other settings of the deployment, the router's own parameters."""
    given = FakeLLMConfig(
        engine_kwargs={"enable_per_request_metrics": False, "block_size": 32},
        deployment_config={
            "num_replicas": 2,
            "request_router_config": {
                "request_router_class": f"{ROUTERS}.round_robin_router.RoundRobinRouter",
                "request_router_kwargs": {"a": 1},
                "max_backoff_s": 0.25,
            },
        },
    )
    observed = observe_llm(given)
    assert observed.engine_kwargs["enable_per_request_metrics"] is False
    assert observed.engine_kwargs["block_size"] == 32
    assert observed.deployment_config["num_replicas"] == 2
    router = observed.deployment_config["request_router_config"]
    assert (router.request_router_kwargs, router.max_backoff_s) == ({"a": 1}, 0.25)


def test_per_request_metrics_are_not_asked_of_an_engine_without_statistics() -> None:
    """vLLM refuses to start with both."""
    observed = observe_llm(FakeLLMConfig(engine_kwargs={"disable_log_stats": True}))
    assert "enable_per_request_metrics" not in observed.engine_kwargs


def test_the_users_server_is_wrapped_under_its_own_name() -> None:
    """Serve names the deployment after the class: dashboards and logs must not change."""
    observed = observe_llm(FakeLLMConfig(server_cls=TheirServer)).server_cls
    assert issubclass(observed, TheirServer)
    assert (observed.__name__, observed.__module__) == ("TheirServer", TheirServer.__module__)


def test_a_server_that_is_not_vllms_keeps_its_engine_options() -> None:
    """They are another engine's, which would not know ours."""

    class FakeSGLangServer:
        async def chat(self, request: Any, raw_request_info: Any = None) -> Any: ...

        async def completions(self, request: Any, raw_request_info: Any = None) -> Any: ...

    observed = observe_llm(FakeLLMConfig(server_cls=FakeSGLangServer))
    assert observed.engine_kwargs == {}
    assert issubclass(observed.server_cls, ObservedServer)


@pytest.mark.parametrize(
    "path",
    [
        "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
        f"{ROUTERS}.round_robin_router.RoundRobinRouter",
        f"{ROUTERS}.consistent_hash_router.ConsistentHashRouter",
        "tests.probe.test_observe.TheirRouter",
    ],
)
def test_any_router_gets_pinning_over_it(path: str) -> None:
    """Found by its path wherever Serve imports it; the user's comes along where Ray takes it."""
    given = RequestRouterConfig(request_router_class=path)
    config = FakeLLMConfig(deployment_config={"request_router_config": given})
    observed = observe_llm(config).deployment_config["request_router_config"]
    assert observed.request_router_class == observed_path(path)
    again = RequestRouterConfig(request_router_class=observed.request_router_class)
    for router in (observed.get_request_router_class(), again.get_request_router_class()):
        assert [cls.__name__ for cls in router.__mro__][1] == "PinningMixin"
        assert router.__name__ == path.replace(":", ".").rpartition(".")[2]
    assert given.request_router_class == path


def test_several_models_and_the_users_ingress() -> None:
    """Every model is observed; the ingress keeps its class and its parameters."""
    given = {
        "llm_configs": [FakeLLMConfig(model_id="a"), FakeLLMConfig(model_id="b")],
        "ingress_cls_config": {"ingress_cls": TheirIngress, "ingress_extra_kwargs": {"x": 1}},
        "ingress_deployment_config": {"num_replicas": 2},
    }
    observed = observe_app(given)
    assert [config.model_id for config in observed["llm_configs"]] == ["a", "b"]
    assert all(issubclass(c.server_cls, ObservedServer) for c in observed["llm_configs"])
    ingress = observed["ingress_cls_config"]
    assert issubclass(ingress.ingress_cls, TheirIngress)
    assert issubclass(ingress.ingress_cls, ObservedIngress)
    assert ingress.ingress_cls.__name__ == "TheirIngress"
    assert ingress.ingress_extra_kwargs == {"x": 1}
    assert observed["ingress_deployment_config"] == {"num_replicas": 2}
    assert given["ingress_cls_config"] == {
        "ingress_cls": TheirIngress,
        "ingress_extra_kwargs": {"x": 1},
    }


def test_the_import_path_for_serve_deploy_builds_the_observed_app(
    fake_ray_llm: dict[str, types.ModuleType],
) -> None:
    """In a YAML file it stands where Ray's own builder stood, and takes the same arguments."""
    vars(fake_ray_llm["ray.serve.llm"])["build_openai_app"] = lambda args: ("built", args)
    built, args = build_openai_app({"llm_configs": [FakeLLMConfig()]})
    assert built == "built"
    assert issubclass(args["llm_configs"][0].server_cls, ObservedServer)
    assert issubclass(args["ingress_cls_config"].ingress_cls, ObservedIngress)


def test_observing_twice_is_observing_once() -> None:
    """An app may be built from settings that are observed already."""
    once = observe_app({"llm_configs": [FakeLLMConfig()]})
    twice = observe_app(once)
    assert twice["llm_configs"] == once["llm_configs"]
    assert twice["ingress_cls_config"] == once["ingress_cls_config"]


def test_direct_streaming_is_observed_by_the_engines_middleware(
    fake_ray_llm: dict[str, types.ModuleType],
) -> None:
    """Ray refuses ingress classes there, and its router sees no headers: both stay as they were."""
    constants: Any = fake_ray_llm["ray.llm._internal.serve.constants"]
    constants.RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING = True
    config = FakeLLMConfig(engine_kwargs={"middleware": ["their.Middleware"]})
    observed = observe_app(observe_app({"llm_configs": [config]}))
    (model,) = observed["llm_configs"]
    assert model.engine_kwargs["middleware"] == ["their.Middleware", DIRECT]
    assert config.engine_kwargs == {"middleware": ["their.Middleware"]}
    assert (model.server_cls, model.deployment_config) == (None, {})
    assert observed["ingress_cls_config"].ingress_cls is FakeOpenAiIngress


def warned(caplog: pytest.LogCaptureFixture) -> str:
    """The one warning, which names what is expected and what is there."""
    (record,) = caplog.records
    message = record.getMessage()
    assert "Expected: ray 2.60, vllm 0.29; found: ray 2.60" in message
    return message


def test_without_ray_serve_llm_the_app_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another Ray has it elsewhere; `build_openai_app` gets what it would have got."""
    monkeypatch.setitem(sys.modules, "ray.serve.llm", None)
    given = {"llm_configs": ["model.yaml"]}
    assert observe_app(given) == given
    assert "the app is not observed" in warned(caplog)


def test_a_server_of_another_shape_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The rest of the model is still observed."""
    observed = observe_llm(FakeLLMConfig(server_cls=FakeOldLLMServer))
    assert observed.server_cls is FakeOldLLMServer
    assert "request_router_config" in observed.deployment_config
    assert "FakeOldLLMServer.chat takes no raw_request_info" in warned(caplog)


def test_a_missing_server_class_is_survived(
    fake_ray_llm: dict[str, types.ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    """Ray's default class has moved: its server stays unobserved, and the router is."""
    del fake_ray_llm["ray.serve.llm.deployment"].LLMServer
    observed = observe_llm(FakeLLMConfig())
    assert (observed.server_cls, observed.engine_kwargs) == (None, {})
    assert "request_router_config" in observed.deployment_config
    assert "are not observed" in caplog.text


@pytest.mark.parametrize(
    "name", ["_choose_replica_for_request", "_select_from_candidate_replicas", "curr_replicas"]
)
def test_a_router_of_another_shape_is_left_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then there is no pinning, and requests are routed as ever."""
    monkeypatch.delattr(ray_private.default_router_class().__mro__[-3], name)
    observed = observe_llm(FakeLLMConfig())
    assert observed.deployment_config == {}
    assert issubclass(observed.server_cls, ObservedServer)
    message = warned(caplog)
    assert "pinning to a replica is not available" in message
    assert name in message


def test_an_ingress_of_another_shape_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The servers are observed in vain then; nobody asks them."""

    class FakeNewIngress:
        __module__ = "ray.fake"

        async def _get_response(self, request: Any) -> AsyncIterator[Any]:
            yield None

    config = {"ingress_cls": FakeNewIngress}
    observed = observe_app({"llm_configs": [FakeLLMConfig()], "ingress_cls_config": config})
    assert observed["ingress_cls_config"].ingress_cls is FakeNewIngress
    assert "_get_response takes no body, call_method, raw_request" in warned(caplog)


def test_an_engine_without_our_options_gets_none(
    fake_ray_llm: dict[str, types.ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    """Ray Serve LLM refuses options that vLLM does not know."""
    arguments: Any = fake_ray_llm["vllm.entrypoints.launchers.cli_args"]
    arguments.FrontendArgs = dataclasses.make_dataclass("Args", ["enable_prompt_tokens_details"])
    observed = observe_llm(FakeLLMConfig())
    assert observed.engine_kwargs == {"enable_prompt_tokens_details": True}
    assert "enable_per_request_metrics" in warned(caplog)


def test_each_loss_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many models an app has."""
    for _ in range(3):
        observe_llm(FakeLLMConfig(server_cls=FakeOldLLMServer))
    warned(caplog)


def test_the_kv_cache_is_heard_of_through_the_engines_statistics() -> None:
    """As of the latest step, the mean over its engines; a new engine is heard of anew."""

    class FakeManager:
        def __init__(self) -> None:
            self.stat_loggers: list[Any] = []

    client = types.SimpleNamespace(logger_manager=FakeManager())
    tap = ray_private.KvCacheTap(lambda: client)
    assert tap() is None
    (logger,) = client.logger_manager.stat_loggers
    logger.record(types.SimpleNamespace(kv_cache_usage=0.5), None, mm_cache_stats=None)
    logger.record(types.SimpleNamespace(kv_cache_usage=0.25), None, engine_idx=1)
    logger.record(None, None)
    logger.log_engine_initialized()
    logger.record_sleep_state(1, 1)
    assert tap() == 0.375
    assert len(client.logger_manager.stat_loggers) == 1
    client.logger_manager = FakeManager()
    assert tap() is None
    assert len(client.logger_manager.stat_loggers) == 1


@pytest.mark.parametrize(
    "client",
    [None, types.SimpleNamespace(), types.SimpleNamespace(logger_manager=None), object()],
)
def test_an_engine_that_does_not_tell_has_no_kv_usage(client: Any) -> None:
    """Not observed, rather than nought."""
    assert ray_private.KvCacheTap(lambda: client)() is None


class TheirRouter(ray_private.default_router_class()):  # type: ignore[misc]
    """A user's own, in a module that a cluster may not have."""
