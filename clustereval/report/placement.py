"""Who and where: the replica × rubric map and the tenants, as rows of text and numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from clustereval.core.findings import Finding, Findings
from clustereval.core.inputs import same_input
from clustereval.core.scenario import Scenario, Slo, Tenant
from clustereval.report.aggregates import judged
from clustereval.report.estimates import Estimate, mean_of_scores, paired_mean, quantile
from clustereval.report.numbers import Scale, count, number_or_none, percent, seconds

POINTS = Scale(100, "", 1)


@dataclass(frozen=True)
class Cell:
    """One replica under one rubric: its mean paired difference, larger is worse."""

    text: str
    interval: str
    n: str
    clear: bool
    shade: int
    worse: bool
    status: str
    source: str


@dataclass(frozen=True)
class ReplicaRow:
    """One replica of the map."""

    replica: str
    rank: str
    n: str
    ttft: str
    cells: list[Cell]


@dataclass(frozen=True)
class ReplicaMap:
    """Replicas × rubrics, and the worst cell in words."""

    rubrics: list[str]
    rows: list[ReplicaRow]
    worst: str
    margin: float | None
    pinned: bool
    loaded: list[str]


def replica_map(
    requests: pd.DataFrame, scores: pd.DataFrame | None, findings: Findings | None
) -> ReplicaMap | None:
    """The map; null where fewer than two replicas were told apart, or nothing is scored.

    A cell comes from the finding of ``replica_skew`` where there is one. Elsewhere it is the
    unadjusted paired difference over prompts, and is marked so.
    """
    seen = requests[requests.replica_id.notna() & (requests.role != "warmup")]
    replicas = sorted(seen.replica_id.unique())
    if len(replicas) < 2 or scores is None:
        return None
    found = _skew_findings(findings)
    pinned = seen[(seen.role == "baseline") & seen.pin.notna()]
    base = pinned if pinned.replica_id.nunique() == len(replicas) else seen
    base = base.assign(content=same_input(base))
    done = scores[scores.status == "scored"]
    rubrics = sorted(done.scorer.unique(), key=lambda name: (name != "correct", name))
    if not rubrics:
        return None
    means = {
        rubric: base.merge(done.loc[done.scorer == rubric, ["request_id", "value"]])
        .groupby(["content", "replica_id"])
        .value.mean()
        .unstack()
        for rubric in rubrics
    }
    rows = []
    worst: tuple[float, str] | None = None
    for replica in replicas:
        cells = []
        for rubric in rubrics:
            finding = found.get((replica, rubric))
            cell, estimate = _cell(finding, means[rubric], replica)
            cells.append(cell)
            if cell.clear and estimate is not None and (worst is None or estimate > worst[0]):
                worst = (
                    estimate,
                    f"`{replica}` scores {POINTS.number(estimate)} points below its siblings in "
                    f"`{rubric}` ({cell.interval}, n = {cell.n})",
                )
        mine = seen[seen.replica_id == replica]
        rank = mine.replica_rank.dropna()
        rows.append(
            ReplicaRow(
                replica=str(replica),
                rank="" if rank.empty else str(int(rank.iloc[0])),
                n=count(len(mine)),
                ttft=seconds(quantile(mine.ttft_due_s, 0.95).value),
                cells=cells,
            )
        )
    idle = {
        replica for (replica, _), f in found.items() if f.slice.get("role", "baseline") != "traffic"
    }
    margin = next((f.margin for f in found.values() if f.margin is not None), None)
    none = "No replica is clearly worse than its siblings in any rubric"
    better = sorted(row.replica for row in rows if any(c.clear and not c.worse for c in row.cells))
    if better:
        none += f" ({', '.join(f'`{name}`' for name in better)} clearly better)"
    return ReplicaMap(
        rubrics,
        rows,
        worst[1] if worst and worst[0] > 0 else none,
        margin,
        base is pinned,
        sorted(set(replicas) - idle),
    )


def _skew_findings(findings: Findings | None) -> dict[tuple[str, str], Finding]:
    """Findings of the whole replica, not of a family within it, by replica and rubric."""
    if findings is None:
        return {}
    whole = [
        f
        for f in findings.of("replica_skew")
        if "replica_id" in f.slice and set(f.slice) <= {"replica_id", "role"} and f.unit == "ratio"
    ]
    # Pinned idle prompts decide; the same replica under load stands in where they are missing.
    whole.sort(key=lambda f: f.slice.get("role") != "traffic")
    return {(str(f.slice["replica_id"]), f.metric): f for f in whole}


def _cell(finding: Finding | None, means: pd.DataFrame, replica: str) -> tuple[Cell, float | None]:
    if finding is not None:
        estimate = Estimate(finding.estimate, finding.low, finding.high, finding.n)
        # Not by the p value: that one tests the margin, not "no difference".
        clear = _excludes_zero(estimate)
        status, source, equal = finding.status.value, "finding", False
    else:
        if replica not in means:
            return Cell("–", "", "0", False, 0, False, "not_observed", ""), None
        others = means.drop(columns=replica).mean(axis=1)
        estimate = paired_mean((others - means[replica]).dropna())
        clear, status, source = False, "", "unadjusted"
        equal = bool((others - means[replica]).dropna().eq(0).all())
    value = estimate.value
    if value is None:
        return Cell("–", "", count(estimate.n), False, 0, False, status, source), None
    return (
        Cell(
            text=POINTS.number(-value) if value else "0.0",
            interval="all pairs equal" if equal else _flipped(estimate),
            n=count(estimate.n),
            clear=clear,
            shade=min(4, 1 + int(abs(value) * 100 / 3)) if value else 0,
            worse=value > 0,
            status=status,
            source=source,
        ),
        value,
    )


def _excludes_zero(estimate: Estimate) -> bool:
    low, high = estimate.low, estimate.high
    return (low is not None and low > 0) or (high is not None and high < 0)


def _flipped(estimate: Estimate) -> str:
    """The interval with the map's sign: minus is worse than the siblings."""
    low = None if estimate.high is None else -estimate.high
    high = None if estimate.low is None else -estimate.low
    return "no interval" if low is None and high is None else POINTS.interval(low, high)


@dataclass(frozen=True)
class Promise:
    """One part of a tenant's SLO and how it was kept."""

    name: str
    value: str
    limit: str
    interval: str
    state: str


@dataclass(frozen=True)
class TenantRow:
    """One tenant: its share of the load and what it got."""

    tenant: str
    n: str
    share: float
    failed: str
    ttft_p50: str
    ttft_p95: str
    e2e_p95: str
    score: str
    score_interval: str
    promises: list[Promise]
    status: str


def tenant_rows(
    requests: pd.DataFrame,
    values: pd.DataFrame | None,
    scenario: Scenario,
    findings: Findings | None,
) -> list[TenantRow]:
    """Tenants of the loaded traffic, largest share first."""
    traffic = judged(requests)
    if traffic.empty:
        return []
    values = None if values is None else judged(values)
    declared = {tenant.name: tenant for tenant in scenario.tenants}
    names = list(traffic.tenant.value_counts().index)
    return [
        _tenant_row(str(name), declared.get(str(name)), traffic, values, findings) for name in names
    ]


def _tenant_row(
    name: str,
    tenant: Tenant | None,
    traffic: pd.DataFrame,
    values: pd.DataFrame | None,
    findings: Findings | None,
) -> TenantRow:
    mine = traffic[traffic.tenant == name]
    score = Estimate(None, None, None, 0)
    if values is not None:
        part = values[values.tenant == name]
        score = mean_of_scores(part.value, part.prompt_id)
    own = [f for f in (findings.of("tenant_fairness") if findings else []) if f.gate]
    states = [f.status.value for f in own if f.slice.get("tenant") == name]
    failed = float((mine.outcome != "ok").mean())
    return TenantRow(
        tenant=name,
        n=count(len(mine)),
        share=len(mine) / len(traffic),
        failed=percent(failed),
        ttft_p50=seconds(quantile(mine.ttft_due_s, 0.5).value),
        ttft_p95=seconds(quantile(mine.ttft_due_s, 0.95).value),
        e2e_p95=seconds(quantile(mine.e2e_due_s, 0.95).value),
        score=percent(score.value),
        score_interval=Scale(100, "", 1).interval(score.low, score.high) if score.n else "",
        promises=_promises(tenant.slo, mine, score, failed) if tenant else [],
        status=next((s for s in ("fail", "inconclusive", "pass") if s in states), ""),
    )


def _promises(slo: Slo, mine: pd.DataFrame, score: Estimate, failed: float) -> list[Promise]:
    rows = []
    for key, column in (("ttft_s", "ttft_due_s"), ("e2e_s", "e2e_due_s")):
        limit = getattr(slo, key)
        if limit is not None:
            seen = quantile(mine[column], slo.quantile)
            rows.append(
                Promise(
                    name=f"{key[:-2].upper()} p{slo.quantile * 100:g}",
                    value=seconds(seen.value),
                    limit=f"≤ {seconds(limit)}",
                    interval=f"{seconds(seen.low)} to {seconds(seen.high)}",
                    state=_state(seen, limit, larger_is_worse=True),
                )
            )
    if slo.error_ratio is not None:
        kept = failed <= slo.error_ratio
        rows.append(
            Promise("failed", percent(failed), f"≤ {percent(slo.error_ratio)}", "",
                    "kept" if kept else "broken")
        )  # fmt: skip
    if slo.score is not None:
        rows.append(
            Promise(
                name="correct",
                value=percent(score.value),
                limit=f"≥ {percent(slo.score)}",
                interval=f"{percent(score.low)} to {percent(score.high)}",
                state=_state(score, slo.score, larger_is_worse=False),
            )
        )
    return rows


def _state(seen: Estimate, limit: float, *, larger_is_worse: bool) -> str:
    """``kept`` or ``broken`` where the interval is wholly on one side; else ``close``."""
    if number_or_none(seen.value) is None:
        return "unknown"
    low, high = (seen.low, seen.high) if larger_is_worse else (
        None if seen.high is None else -seen.high,
        None if seen.low is None else -seen.low,
    )  # fmt: skip
    bound = limit if larger_is_worse else -limit
    if low is not None and low > bound:
        return "broken"
    if high is not None and high <= bound:
        return "kept"
    return "close"
