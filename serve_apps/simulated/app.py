"""The Ray Serve application: one deployment, autoscaled, behind Serve's HTTP proxy."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from clustereval.core.prompts import Prompt, read_prompts
from clustereval.probe import ProbeMiddleware
from serve_apps.simulated.answers import AnswerBook
from serve_apps.simulated.driver import Driver
from serve_apps.simulated.faults import Faults
from serve_apps.simulated.model import Model
from serve_apps.simulated.openai_http import Replica, create_api
from serve_apps.simulated.prompts import kv_blocks
from serve_apps.simulated.settings import AppSettings, EngineSettings, ModelSettings

DEPLOYMENT = "Simulated"


@dataclass(frozen=True)
class Options:
    """Everything that the application is made from; travels to each replica."""

    prompt_files: tuple[str, ...] = ()
    faults: Mapping[str, float] = field(default_factory=dict)
    engine: EngineSettings = field(default_factory=EngineSettings)
    app: AppSettings = field(default_factory=AppSettings)
    models: ModelSettings = field(default_factory=ModelSettings)


@serve.ingress()
class SimulatedReplica:
    """One replica: loads, then answers over HTTP."""

    def __init__(self, options: Options):
        self._options = options
        self._rank = serve.get_replica_context().rank.rank
        faults = Faults(options.faults, self._rank)
        time.sleep(options.app.start_s + faults.start_delay_s(options.app.min_replicas))
        prompts = _read(options.prompt_files)
        engine = replace(
            options.engine, kv_blocks=kv_blocks(options.engine, prompts, faults.kv_ratio)
        )
        answers = AnswerBook(prompts, options.app.base_accuracy)
        self._model = Model(engine, answers, faults)
        self._driver: Driver | None = None

    def record_replica_metadata(self) -> dict[str, Any]:
        """Tells routers this replica's rank, so that requests can be pinned to it."""
        return {"rank": self._rank}

    def check_health(self) -> None:
        """Serve replaces a replica whose engine broke down."""
        if self._driver is not None and not self._driver.is_healthy:
            raise RuntimeError("the simulated engine broke down")

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = create_api(self._lifespan)
        api.add_middleware(
            ProbeMiddleware, kv_cache_usage=lambda: self._model.engine.kv.usage_ratio
        )
        return api

    @contextlib.asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        provider = _tracing()
        self._driver = Driver(self._model, time.monotonic)
        names = self._options.models.names
        api.state.replica = Replica(self._model, self._driver, names)
        yield
        await self._driver.close()
        if provider is not None:
            provider.shutdown()


def build(options: Options) -> serve.Application:
    """The application for ``serve.run``."""
    app = options.app
    deployment = serve.deployment(
        SimulatedReplica,
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=app.max_ongoing_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=app.min_replicas,
            initial_replicas=app.min_replicas,
            max_replicas=app.max_replicas,
            target_ongoing_requests=app.target_ongoing_requests,
            metrics_interval_s=app.metrics_interval_s,
            look_back_period_s=app.look_back_period_s,
            upscale_delay_s=Faults(options.faults).upscale_delay_s(app.upscale_delay_s),
            downscale_delay_s=app.downscale_delay_s,
            upscaling_factor=app.upscaling_factor,
            downscaling_factor=app.downscaling_factor,
        ),
        request_router_config=RequestRouterConfig(
            request_router_class="clustereval.probe.router:PinningRouter"
        ),
        graceful_shutdown_timeout_s=2.0,
        graceful_shutdown_wait_loop_s=0.2,
    )
    return deployment.bind(options)


def _read(files: tuple[str, ...]) -> list[Prompt]:
    return list(read_prompts(*(Path(file) for file in files))) if files else []


def _tracing() -> Any:
    """OpenTelemetry's SDK, where the environment names an OTLP endpoint."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "clustereval-simulated"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)
    return provider
