"""What the analysis says of goodput: the part of ``findings.json`` under ``goodput``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Holds = Literal["holds", "broken", "undecided", "not_judged"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Kept(_Part):
    """One promise of one tenant in one stretch of traffic: the share that missed it."""

    tenant: str
    promise: str = Field(description="`ttft_s`, `e2e_s`, `error_ratio` or `score`")
    limit: float = Field(description="as promised: seconds, or a ratio")
    missed: float | None = Field(description="share that missed it, as a ratio; null: no data")
    low: float | None = Field(description="lower bound of that share")
    high: float | None = Field(description="upper bound")
    allowed: float = Field(description="the share that may miss it")
    n: int = Field(description="requests that entered")


class Stretch(_Part):
    """One phase, or one step of a stepped phase; rates are requests per second of offered time.

    What was still queued when it ended is its own: requests belong to it by due time.
    """

    phase: str
    step: int | None = Field(None, description="from 1; null: the phase has no steps")
    declared_per_s: float | None = Field(None, description="the step's rate in the scenario")
    offered_s: float = Field(description="for how long requests were due, lead and rest left out")
    n: int = Field(description="requests due")
    offered_per_s: float
    answered_per_s: float = Field(description="ended with a whole answer")
    in_time: float | None = Field(None, description="share in time by the SLO, as a ratio")
    right: float | None = Field(None, description="share right, of those that could be judged")
    unjudged: int = Field(0, description="in time and answered, but without a score")
    good_per_s: float | None = Field(None, description="the goodput; null: cannot be told")
    low_per_s: float | None = Field(None, description="lower bound; the unjudged are not good")
    high_per_s: float | None = Field(None, description="upper bound; the unjudged are left out")
    status: Holds = Field("not_judged", description="whether SLO and quality floor hold in it")
    why: str = Field("", description="the promise that decides, or what is missing")
    kept: list[Kept] = Field(default_factory=list)
    leaked: int = Field(0, description="requests that met what an earlier phase or step left over")
    cold: int = Field(0, description="requests that met a cold replica")


class Highest(_Part):
    """The highest step of a stepped phase at which SLO and quality floor are shown to hold."""

    phase: str
    step: int | None = Field(None, description="null: not even the first is shown to hold")
    offered_per_s: float | None = None
    answered_per_s: float | None = None
    good_per_s: float | None = None
    low_per_s: float | None = None
    high_per_s: float | None = None
    at_least: bool = Field(False, description="the last step still held: the highest was not met")
    next_status: Holds | None = Field(None, description="of the step above; null: there is none")
    sentence: str = ""


class Goodput(_Part):
    """Requests a second that were fast *and* right."""

    sentence: str = Field(description="the headline")
    rule: str = Field(description="what counts as good")
    missing: list[str] = Field(
        default_factory=list, description="what keeps it from being told; empty: nothing"
    )
    tenants: list[str] = Field(default_factory=list, description="those that were promised times")
    left_out: int = Field(0, description="requests of tenants that were promised none")
    confidence: float = 0.95
    resampling_unit: str = ""
    method: str = ""
    run: Stretch | None = Field(None, description="all loaded traffic but stepped phases")
    stretches: list[Stretch] = Field(default_factory=list)
    highest: list[Highest] = Field(default_factory=list, description="one per stepped phase")


class ColdStart(_Part):
    """The cold requests of one replica."""

    replica_id: str | None = Field(description="null: the target as a whole, replicas not known")
    n: int
    from_s: float = Field(description="when its first cold request was sent")
    until_s: float = Field(description="when its last cold request had its first token")
    slowest_s: float = Field(description="longest TTFT among them, from sent")
    usual_s: float | None = Field(description="median TTFT of its later requests, from sent")
    phases: dict[str, int] = Field(description="phase → how many of them")


class Leaked(_Part):
    """What one phase, or step, left over for the next."""

    phase: str
    step: int | None = None
    source: str = Field(description="the phase or step that left most of it over")
    in_flight: int = Field(description="requests of earlier ones in flight when it began")
    n: int = Field(description="its own requests that met them")
    of: int = Field(description="its own requests")
    lasted_s: float


class Drift(_Part):
    """The first tenth of the baseline against the rest of it, at equal prompt length."""

    phase: str
    ratio: float = Field(description="median TTFT of the first tenth over that of the rest")
    p_value: float = Field(description="one-sided, of no difference (Mann-Whitney)")
    n: int = Field(description="requests in the first tenth")
    drifts: bool


class Warmup(_Part):
    """Whether the service was warm, and whether phases kept apart."""

    sentences: list[str] = Field(description="what to know of it; empty: nothing was found")
    enough: bool | None = Field(
        description="whether the baseline met a warm, idle service; null: cannot be told"
    )
    baseline_left_out: int = Field(
        0, description="idle requests that are no reference: cold, or met by a backlog"
    )
    cold: list[ColdStart] = Field(default_factory=list)
    leaks: list[Leaked] = Field(default_factory=list)
    drift: Drift | None = None
    slowest: int = Field(0, description="the slowest 1% of loaded requests by TTFT from due")
    slowest_cold: int = Field(0, description="of these, how many met a cold replica")
