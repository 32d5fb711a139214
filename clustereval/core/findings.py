"""What the analysis says: findings, their warnings, and the verdict.

``findings.json`` is ``Findings.model_dump_json()``; its JSON Schema ships in ``reports/``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clustereval.core.errors import ExitCode
from clustereval.core.goodput import Goodput, Warmup

CHECKS = (
    "model_quality",
    "replica_skew",
    "autoscaling_lag",
    "cache_eviction",
    "traffic_drift",
    "tenant_fairness",
    "fidelity",
    "streaming",
    "run_health",
)


class Status(StrEnum):
    """Outcome of one finding or one check against its margin.

    A check is a ``remark`` where it found something that it is not asked to fail.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_OBSERVED = "not_observed"
    REMARK = "remark"


class Outcome(StrEnum):
    """Outcome of the whole run."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"

    @property
    def exit_code(self) -> ExitCode:
        return {
            Outcome.PASS: ExitCode.PASS,
            Outcome.FAIL: ExitCode.FAIL,
            Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
            Outcome.INVALID: ExitCode.NO_VALID_RUN,
        }[self]


class WarningCode(StrEnum):
    """Closed list of what may weaken a finding; ``WARNING_ADVICE`` says what to do about each."""

    FEW_PAIRS = "few_pairs"
    FEW_CLUSTERS = "few_clusters"
    QUANTILE_UNBOUNDED = "quantile_unbounded"
    MISSING_SCORES = "missing_scores"
    CONFOUNDED = "confounded"
    UNPAIRED = "unpaired"
    PARTLY_OBSERVED = "partly_observed"
    EXPLORATORY = "exploratory"
    CLIENT_LATE = "client_late"
    SCORER_FAILED = "scorer_failed"
    INTERRUPTED = "interrupted"
    IDLE_NOISE = "idle_noise"


WARNING_ADVICE: dict[WarningCode, str] = {
    WarningCode.FEW_PAIRS: "send more distinct prompts to both sides of the comparison",
    WarningCode.FEW_CLUSTERS: "lengthen the phase: too few load windows to tell what varies there",
    WarningCode.QUANTILE_UNBOUNDED: "send more requests, or judge a lower quantile",
    WarningCode.MISSING_SCORES: "look at the failed requests: the bounds count them as wrong",
    WarningCode.CONFOUNDED: "compare within the fields named, or vary one of them at a time",
    WarningCode.UNPAIRED: "let both sides answer the same prompts",
    WarningCode.PARTLY_OBSERVED: "add the probe, or give the Ray dashboard's address",
    WarningCode.EXPLORATORY: "confirm it in a run that declares it as a gate",
    WarningCode.CLIENT_LATE: "lower the rate, or run the load from another machine",
    WarningCode.SCORER_FAILED: "fix the scorer and run `clustereval score` again",
    WarningCode.INTERRUPTED: "let the run finish",
    WarningCode.IDLE_NOISE: "idle answers already differ: set temperature 0 and a seed",
}


class Warning(BaseModel):
    """A warning is part of the result, never a log line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: WarningCode
    detail: str = ""

    @property
    def advice(self) -> str:
        return WARNING_ADVICE[self.code]


Value = str | float | int | None


class Finding(BaseModel):
    """One statement: an estimate with its interval, held against a margin.

    ``estimate``, ``low``, ``high`` and ``margin`` share ``unit`` and one orientation: **larger is
    worse**, so a finding fails where ``low >= margin`` (shown to be at least the margin), passes
    where ``high < margin``, and is inconclusive between. ``null`` bounds mean "cannot be bounded".
    """

    model_config = ConfigDict(extra="forbid")

    check: str = Field(description="name of the check, or `compare`")
    metric: str = Field(description="what was measured, e.g. `correct` or `ttft_due_s.p95`")
    unit: str = Field(description="`ratio` (0..1), `s`, `times` or `count`")
    effect: str = Field(description="what the estimate is, e.g. `drop against siblings`")
    slice: dict[str, Value] = Field(
        default_factory=dict, description="which requests, column → value; empty: all of the run"
    )
    baseline: dict[str, Value] = Field(
        default_factory=dict, description="what they are held against: requests, or a limit"
    )
    observed: float | None = Field(None, description="the metric itself, in the slice")
    reference: float | None = Field(None, description="the metric itself, in the baseline")
    estimate: float | None = Field(
        None, description="the effect; null: nothing to estimate it from"
    )
    low: float | None = Field(None, description="lower bound; null: cannot be bounded")
    high: float | None = Field(None, description="upper bound; null: cannot be bounded")
    confidence: float = Field(0.95, description="of the interval `low` to `high`")
    margin: float | None = Field(None, description="the smallest effect that fails")
    n: int = Field(0, description="requests that entered")
    clusters: int | None = Field(None, description="clusters that entered, e.g. paired prompts")
    resampling_unit: str = Field("request", description="what the interval takes as independent")
    method: str = Field("", description="how the interval was made")
    p_value: float | None = Field(
        None, description='one-sided, of "the effect is below the margin"; null: not tested'
    )
    p_adjusted: float | None = Field(
        None, description="the same after Holm (gates) or Benjamini-Hochberg (exploratory)"
    )
    gate: bool = Field(True, description="false: exploratory, can never fail the verdict")
    status: Status = Field(Status.INCONCLUSIVE, description="`pass`, `fail` or `inconclusive`")
    sentence: str = Field("", description="the finding as a sentence that one can say aloud")
    more_requests: int | None = Field(
        None, description="further requests of the slice that would decide with 80% power"
    )
    more_in: str | None = Field(
        None, description="the phase that sends most of such requests; null: any under load"
    )
    warnings: list[Warning] = Field(
        default_factory=list, description="what weakens it: `{code, detail}`, see below"
    )
    evidence: list[str] = Field(default_factory=list, description="worst request ids, worst first")
    remedy: str = Field("", description="what to change, from what was measured; empty: nothing")


class CheckResult(BaseModel):
    """What one check says as a whole."""

    model_config = ConfigDict(extra="forbid")

    check: str
    required: bool
    status: Status
    sentence: str
    not_observed: str | None = Field(None, description="why, and what would make it observable")
    deciding: int | None = Field(None, description="index into findings of the deciding one")


class Verdict(BaseModel):
    """The outcome of the run, and why."""

    model_config = ConfigDict(extra="forbid")

    outcome: Outcome
    sentence: str
    because: list[str] = Field(default_factory=list)


class Findings(BaseModel):
    """The whole of ``findings.json``."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    verdict: Verdict
    checks: list[CheckResult]
    findings: list[Finding]
    counts: dict[str, int] = Field(
        description="planned, ok (of which cancelled), error, timeout, dropped, …"
    )
    goodput: Goodput | None = Field(
        None, description="requests a second that were fast and right; null: no loaded traffic"
    )
    warmup: Warmup | None = Field(
        None, description="whether the service was warm, and phases kept apart; null: not looked at"
    )
    context: dict[str, Any] = Field(
        default_factory=dict, description="level of observation, power, adjustments"
    )

    def of(self, check: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.check == check]
