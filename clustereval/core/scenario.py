"""The one declaration of a scenario: traffic, tenants, prompts, and what must hold.

The JSON Schema that editors use (``scenarios/scenario.schema.json``) is generated from here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clustereval.core.arrivals import Arrivals, Steps, Trace
from clustereval.core.checks import Checks, Floor, Margin
from clustereval.core.sessions import Cancel, Sessions
from clustereval.core.strict import NonNegative, Positive, Ratio, Strict


class Sweep(Strict):
    """Every prompt of a set, once or more, at an even rate: the golden set at idle."""

    prompts: str = Field(description="name of the prompt set")
    rate: Positive = Field(description="requests per second, per replica where pinned")
    repeats: int = Field(1, ge=1, description="how often each prompt is sent to each replica")
    pin: Literal["each_replica", "none"] = Field(
        "none",
        description="`each_replica`: every replica answers every prompt, where it can be"
        " asked for by rank; elsewhere the sweep is sent unpinned",
    )


class Phase(Strict):
    """One stretch of traffic. Give ``sweep``, or ``duration_s`` with ``arrivals``."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    role: Literal["warmup", "baseline", "traffic"] = Field(
        "traffic",
        description="`baseline`: idle answers that loaded ones are compared with; "
        "`warmup`: recorded, but left out of every check",
    )
    duration_s: Positive | None = Field(None, description="how long arrivals go on")
    arrivals: Arrivals | None = Field(None, description="one of the arrival processes below")
    sweep: Sweep | None = Field(None, description="each prompt in turn, instead of arrivals")
    sessions: Sessions | None = Field(None, description="arrivals are users, who converse")
    cancel: Cancel | None = Field(None, description="clients that hang up in mid-stream")
    settle_s: NonNegative = Field(0.0, description="pause after the phase, nothing is sent")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.sweep is not None:
            if self.arrivals is not None or self.duration_s is not None:
                raise ValueError("a sweep sets its own length: drop duration_s and arrivals")
            if self.sessions is not None:
                raise ValueError("a sweep asks every turn by itself: drop sessions")
        elif self.arrivals is None or self.duration_s is None:
            raise ValueError("give duration_s and arrivals, or sweep")
        elif (steps := self.steps) is not None and steps.judged_s(self.duration_s) <= 0:
            raise ValueError(
                f"lead_s and rest_s, {steps.lead_s + steps.rest_s:g} s, leave nothing of steps of "
                f"{steps.step_s(self.duration_s):g} s (duration_s / steps)"
            )
        if isinstance(self.arrivals, Trace) and self.sessions is not None:
            raise ValueError(
                "a trace has its own requests: drop sessions, or take only its times (like_trace)"
            )
        if self.steps is not None and self.sessions is not None:
            raise ValueError(
                "steps judge each rate by what was due in it, and later turns are due when the "
                "target lets them: drop sessions, or the steps"
            )
        if self.cancel is not None and self.role == "baseline":
            raise ValueError("idle answers are what others are compared with: drop cancel")
        return self

    @property
    def steps(self) -> Steps | None:
        """Its steps, where its rate is stepped."""
        return self.arrivals if isinstance(self.arrivals, Steps) else None


class Slo(Strict):
    """What a tenant was promised. Times count from *due*."""

    ttft_s: Positive | None = Field(None, description="to the first token")
    e2e_s: Positive | None = Field(None, description="to the last one")
    quantile: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.95, description="the quantile of ttft_s and e2e_s that must keep within them"
    )
    error_ratio: Margin | None = Field(None, description="error, timeout and dropped together")
    score: Floor | None = Field(None, description="mean of the rubric `correct`")


class Tenant(Strict):
    """Who sends: a share of each phase's rate, or a rate of its own in every traffic phase."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    share: Positive | None = Field(None, description="share of each phase's rate, relative")
    rate: Positive | None = Field(None, description="own Poisson rate beside the phase's")
    prompts: dict[str, Positive] | None = Field(
        None, description="prompt set → weight; all sets alike where not given"
    )
    models: dict[str, Positive] | None = Field(
        None,
        description="model or LoRA adapter → weight: what its requests ask for; the run's --model "
        "where not given. A sweep asks every prompt of each",
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="sent with each of its requests; no credentials"
    )
    headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="header → environment variable with its value: for a gateway's own keys",
    )
    api_key_env: str | None = Field(
        None, description="environment variable with its API key, sent as a bearer token"
    )
    slo: Slo = Field(default_factory=Slo, description="what it was promised")

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.share is None) == (self.rate is None):
            raise ValueError("give share or rate, one of the two")
        if self.models == {}:
            raise ValueError("models: name at least one, or drop it")
        return self

    @property
    def key_variables(self) -> tuple[str, ...]:
        """The environment variables that it takes keys from."""
        own = () if self.api_key_env is None else (self.api_key_env,)
        return (*own, *self.headers_env.values())


class Request(Strict):
    """How each request is made, and how long it may take."""

    max_tokens: int = Field(256, gt=0, description="where a prompt sets none of its own")
    temperature: NonNegative = Field(0.0, description="0: answers can be compared with idle ones")
    seed: int | None = Field(0, description="sampling seed sent with each request")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="ask for each token's log probability, and for so many "
        "alternatives; where a prompt sets none of its own",
    )
    stream: bool = Field(True, description="else there is no time to first token")
    timeout_s: Positive = Field(60.0, description="from sent to the end of the response")
    stall_s: Positive | None = Field(None, description="longest gap between two chunks")
    deadline_s: Positive = Field(
        5.0, description="an arrival that cannot be sent this long after it was due is dropped"
    )
    max_in_flight: int = Field(512, gt=0, description="arrivals beyond it are dropped")


class GoodAnswers(Strict):
    """Which requests count as good: in time by their tenant's SLO, and right."""

    right_from: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="an answer is right from this score of the rubric `correct` on"
    )


class SaturationEdges(Strict):
    """Lower edges, in requests per running replica; below ``warm`` is ``idle``."""

    warm: Positive = 2
    saturating: Positive = 8
    scaling: Positive = 16


class CacheEdges(Strict):
    """Lower edges of the cache-hit ratio; at or below ``medium`` is ``low``."""

    medium: Ratio = 0.55
    high: Ratio = 0.85


class TrafficEdges(Strict):
    """How a window of traffic gets its pattern."""

    window_s: Positive = Field(60, description="phases are cut into windows so long")
    peak_bin_s: Positive | None = Field(
        None, description="resolution at which the peak is taken; a twelfth of the window if unset"
    )
    burst_peak_to_mean: Positive = Field(
        2.5, description="a window whose peak exceeds its mean so many times is a burst"
    )
    sustained_utilization: Positive = Field(
        0.7,
        description="requests in the cluster / (replicas × target_ongoing_requests) from which a "
        "window is sustained",
    )
    target_ongoing_requests: Positive | None = Field(
        None, description="per replica; read from the Ray dashboard where not given"
    )


class Buckets(Strict):
    """Edges of the slices."""

    saturation: SaturationEdges = Field(default_factory=SaturationEdges)
    cache_hit: CacheEdges = Field(default_factory=CacheEdges)
    traffic: TrafficEdges = Field(default_factory=TrafficEdges)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        edges = self.saturation
        if not edges.warm < edges.saturating < edges.scaling:
            raise ValueError("saturation edges must ascend: warm < saturating < scaling")
        if not self.cache_hit.medium < self.cache_hit.high:
            raise ValueError("cache_hit edges must ascend: medium < high")
        return self


class Observe(Strict):
    """How the cluster is watched."""

    sample_interval_s: Positive = Field(1.0, description="how often the dashboard is asked")


class Scenario(Strict):
    """A whole scenario file."""

    name: str = Field(
        min_length=1, pattern=r"^[A-Za-z0-9_.-]+$", description="run folders are named after it"
    )
    description: str = Field("", description="for the report")
    seed: int = Field(0, ge=0, description="decides every arrival and which prompt it brings")
    prompt_sets: dict[str, str | list[str]] = Field(
        min_length=1, description="set name → JSONL file or files, relative to the scenario file"
    )
    tenants: list[Tenant] = Field(
        default_factory=lambda: [Tenant(name="default", share=1.0)],
        min_length=1,
        description="who sends; one where none is given",
    )
    phases: list[Phase] = Field(min_length=1, description="one after the other")
    request: Request = Field(default_factory=Request)
    buckets: Buckets = Field(default_factory=Buckets)
    observe: Observe = Field(default_factory=Observe)
    goodput: GoodAnswers = Field(default_factory=GoodAnswers)
    checks: Checks = Field(default_factory=Checks)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        for kind, names in (
            ("tenant", [tenant.name for tenant in self.tenants]),
            ("phase", [phase.name for phase in self.phases]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} names must be unique; found twice: {', '.join(twice)}")
        if all(tenant.share is None for tenant in self.tenants):
            raise ValueError("at least one tenant needs a share of the phases' rates")
        used = {p.sweep.prompts for p in self.phases if p.sweep} | {
            name for tenant in self.tenants for name in tenant.prompts or {}
        }
        unknown = sorted(used - set(self.prompt_sets))
        if unknown:
            raise ValueError(
                f"unknown prompt set {', '.join(unknown)}; declared: {', '.join(self.prompt_sets)}"
            )
        known = {tenant.name for tenant in self.tenants}
        for phase in self.phases:
            if isinstance(phase.arrivals, Trace):
                strange = sorted(set(phase.arrivals.tenants.values()) - known)
                if strange:
                    raise ValueError(
                        f"phase {phase.name!r} gives a trace's requests to unknown tenants: "
                        f"{', '.join(strange)}; declared: {', '.join(sorted(known))}"
                    )
        return self

    @model_validator(mode="after")
    def _hang_up_in_streams(self) -> Self:
        cancelling = [phase.name for phase in self.phases if phase.cancel is not None]
        if cancelling and not self.request.stream:
            raise ValueError(
                f"phase {cancelling[0]!r} hangs up after the first token, but request.stream is "
                "false: drop cancel, or stream"
            )
        return self
