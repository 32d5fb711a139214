"""What each check demands: its margins, declared once.

Margins of scores and rates are differences of ratios (0.05 = 5 points); larger is worse.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Margin = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Floor = Annotated[float, Field(ge=0, lt=1)]
"""Of a mean score. 1 would leave no margin: nothing could be shown to be as good."""
Seconds = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(gt=1)]
Quantile = Annotated[float, Field(gt=0.5, lt=1)]


class Check(BaseModel):
    """Settings that every check has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    advisory: ClassVar[bool] = False
    """What it finds is a remark that never fails the verdict, unless the check is required."""

    enabled: bool = Field(True, description="false: not judged at all")
    required: bool = Field(
        False, description="unobserved or inconclusive then makes the verdict inconclusive"
    )


class Contrast(Check):
    """Settings of a check that compares scores between slices."""

    rubrics: list[str] = Field(
        default_factory=lambda: ["correct"],
        min_length=1,
        description="rubrics that gate; every other one is exploratory",
    )
    score_margin: Margin = Field(0.05, description="drop of a rubric's mean that is too much")


class ModelQuality(Check):
    """Each rubric, idle, against its floor."""

    floors: dict[str, Floor] = Field(
        default_factory=lambda: {"correct": 0.85, "degeneration": 0.97},
        description="rubric → lowest mean that is good enough",
    )


class ReplicaSkew(Contrast):
    """Each replica with its siblings, same prompts; and whether it lived."""

    lost_replicas: int = Field(
        0, ge=0, description="replicas that may end without the autoscaler having asked for fewer"
    )


class AutoscalingLag(Contrast):
    """Saturated and scaling with idle, and how long a new replica takes."""

    ttft_s: Seconds = Field(5.0, description="longest TTFT in the saturated buckets, at `quantile`")
    e2e_s: Seconds = Field(30.0, description="longest E2E in the saturated buckets, at `quantile`")
    quantile: Quantile = Field(0.95, description="of TTFT and E2E")
    error_margin: Margin = Field(0.02, description="more requests without a whole answer than idle")
    truncation_margin: Margin = Field(0.03, description="more truncated answers than idle")
    demand_s: Seconds = Field(
        90.0,
        description="from when more requests were in flight than the autoscaler's target is for, "
        "to the target's rise",
    )
    scale_up_s: Seconds = Field(60.0, description="from the target's rise to a ready replica")


class CacheEviction(Contrast):
    """Low and medium cache hit with high, and what prompts no longer find in the cache."""

    divergence_margin: Margin = Field(0.05, description="more diverging answers than at high hit")
    hit_margin: Margin = Field(
        0.3,
        description="cache hit that prompts asked again of the same replica may lose against the "
        "best that they found; 1 judges it never",
    )
    ttft_factor: Factor = Field(
        4.0, description="TTFT, and prefill, of missed prefixes against hit ones; exploratory"
    )


class TrafficDrift(Contrast):
    """Burst and sustained traffic with steady."""

    quantile: Quantile = Field(0.95, description="of TTFT and E2E")
    latency_factor: Factor = Field(4.0, description="TTFT and E2E against steady, at `quantile`")


class TenantFairness(Contrast):
    """Each tenant with the others, and with its own SLO."""

    quantile: Quantile = Field(0.99, description="of E2E")
    latency_factor: Factor = Field(1.5, description="E2E against the other tenants, at `quantile`")


class Fidelity(Check):
    """The loaded answer with the idle answer to the same prompt, at temperature 0."""

    divergence: Literal["harmful", "any"] = Field(
        "harmful",
        description="which diverging answers gate. `harmful`: those that one of `harm_rubrics` "
        "scores below the idle answers to the same prompt; `any`: every one whose text differs. "
        "The other kind is measured all the same, as an exploratory finding",
    )
    harm_rubrics: list[str] = Field(
        default_factory=lambda: ["correct", "degeneration"],
        min_length=1,
        description="rubrics that tell a harmful divergence from a harmless one; where none of "
        "them scored an answer, any divergence gates",
    )
    divergence_margin: Margin = Field(0.03, description="diverging answers beyond idle noise")
    failure_margin: Margin = Field(0.02, description="error, timeout and dropped together")
    truncation_margin: Margin = Field(0.03, description="more truncated answers than idle")


class Streaming(Check):
    """Whether tokens arrive as they are made; a remark, which fails nothing unless required."""

    advisory: ClassVar[bool] = True

    held_margin: Margin = Field(
        0.05, description="share of streamed answers that may arrive in lumps"
    )


class RunHealth(Check):
    """The run itself; where it fails, the run is not valid."""

    required: bool = True
    late_p99_s: Seconds = Field(0.1, description="lateness of the load generator, p99")
    client_ratio: Ratio = Field(
        0.2,
        description="the load generator's own part of TTFT and of E2E, in the median or at p99; "
        "a fifth of a number moves it by less than half of 1.5, the smallest latency factor that "
        "is judged",
    )
    client_least_s: Seconds = Field(
        0.01, description="where its part is less than this it refuses nothing: no SLO is as fine"
    )
    dropped_ratio: Ratio = Field(0.01, description="arrivals that the load generator never sent")
    unobserved_ratio: Ratio = Field(
        0.05, description="answered requests without the placement their level should give"
    )


class Checks(BaseModel):
    """The checks of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    confidence: Annotated[float, Field(ge=0.8, lt=1)] = Field(
        0.95, description="of the verdict as a whole, over all its gates together"
    )
    model_quality: ModelQuality = Field(default_factory=ModelQuality)
    replica_skew: ReplicaSkew = Field(default_factory=ReplicaSkew)
    autoscaling_lag: AutoscalingLag = Field(default_factory=AutoscalingLag)
    cache_eviction: CacheEviction = Field(default_factory=CacheEviction)
    traffic_drift: TrafficDrift = Field(default_factory=TrafficDrift)
    tenant_fairness: TenantFairness = Field(default_factory=TenantFairness)
    fidelity: Fidelity = Field(default_factory=Fidelity)
    streaming: Streaming = Field(default_factory=Streaming)
    run_health: RunHealth = Field(default_factory=RunHealth)

    def demanded_rubrics(self) -> list[str]:
        """Rubrics that the scenario itself names; defaults apply only where prompts allow it."""
        named: list[str] = []
        for name in type(self).model_fields:
            check = getattr(self, name)
            if isinstance(check, Contrast) and "rubrics" in check.model_fields_set:
                named += check.rubrics
            elif isinstance(check, ModelQuality) and "floors" in check.model_fields_set:
                named += check.floors
        return named
