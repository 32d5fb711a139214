"""Why the verdict can be believed, and where it cannot: counts, lateness, power, gaps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clustereval.core.findings import Status
from clustereval.observe.calibration import kept_note
from clustereval.observe.lost import lost_sight
from clustereval.report import aggregates as agg
from clustereval.report.checks_view import interval_text
from clustereval.report.names import TITLES
from clustereval.report.numbers import count, margin_text, percent, scale_of, seconds
from clustereval.report.redact import redacted

if TYPE_CHECKING:
    import pandas as pd

    from clustereval.core.findings import Finding, Findings
    from clustereval.rundir import Manifest


@dataclass(frozen=True)
class Segment:
    """One part of a bar, in per cent of its width."""

    name: str
    n: str
    share: str
    start: float
    width: float


@dataclass(frozen=True)
class Power:
    """What one check could have seen."""

    check: str
    metric: str
    n: str
    clusters: str
    unit: str
    half_width: str
    margin: str
    more: str


@dataclass(frozen=True)
class Trust:
    """Everything of the section."""

    arrivals: list[Segment]
    scored: list[Segment]
    rubric: str
    scorers: list[dict[str, Any]]
    late: dict[str, str]
    late_limit: str
    late_ok: bool | None
    client_part: list[str]
    """The load generator's own part of latencies, as run_health says it."""
    power: list[Power]
    gates: int
    exploratory: int
    gaps: list[tuple[str, str]]
    observation: list[tuple[str, str]]
    load: list[tuple[str, str]]


def trust(
    manifest: Manifest, requests: pd.DataFrame | None, scores: pd.DataFrame | None,
    findings: Findings | None, rubric: str | None,
) -> Trust:  # fmt: skip
    """The section's content, from whatever of the run is there."""
    late = {"p50": None, "p99": None, "max": None} if requests is None else agg.lateness(requests)
    limit = manifest.scenario.checks.run_health.late_p99_s
    states = [] if scores is None else agg.score_states(scores).to_dict("records")
    mine = next((row for row in states if row["scorer"] == rubric), None)
    p99 = late["p99"]
    return Trust(
        arrivals=segments(agg.outcomes(requests)) if requests is not None else [],
        scored=segments({key: mine[key] for key in ("scored", "unscored", "failed")})
        if mine
        else [],
        rubric=rubric or "",
        scorers=[{str(key): value for key, value in row.items()} for row in states],
        late={name: seconds(value) for name, value in late.items()},
        late_limit=seconds(limit),
        late_ok=None if p99 is None else p99 <= limit,
        client_part=[
            finding.sentence
            for finding in (findings.findings if findings else [])
            if finding.metric.startswith("client_ratio.")
        ],
        power=_power(findings),
        gates=sum(f.gate for f in findings.findings) if findings else 0,
        exploratory=sum(not f.gate for f in findings.findings) if findings else 0,
        gaps=[("Ray's view", why) for why in lost_sight(manifest.observation, manifest.level)]
        + [
            (TITLES.get(check.check, check.check), check.not_observed or check.sentence)
            for check in (findings.checks if findings else [])
            if check.status is Status.NOT_OBSERVED
        ],
        observation=_pairs(manifest.observation),
        load=_pairs(manifest.load) + _traced(requests),
    )


def _traced(requests: pd.DataFrame | None) -> list[tuple[str, str]]:
    """Whether prompts had the lengths of the trace that was replayed; nothing where none was."""
    note = None if requests is None else kept_note(requests)
    return [] if note is None else [("traced prompts", note)]


def segments(counts: dict[str, int]) -> list[Segment]:
    """Parts of one bar, zero parts kept in the legend."""
    total = sum(counts.values()) or 1
    start, parts = 0.0, []
    for name, number in counts.items():
        width = 100 * number / total
        parts.append(
            Segment(name, count(number), percent(number / total), round(start, 3), round(width, 3))
        )
        start += width
    return parts


def _power(findings: Findings | None) -> list[Power]:
    """Per check the deciding finding's resolution: half the width of its interval."""
    rows = []
    for check in findings.checks if findings else []:
        if check.deciding is None or findings is None:
            continue
        finding = findings.findings[check.deciding]
        scale = scale_of(finding)
        half = None
        exact = interval_text(finding) == "exact"
        if finding.low is not None and finding.high is not None:
            half = (finding.high - finding.low) / 2
        rows.append(
            Power(
                check=TITLES.get(check.check, check.check),
                metric=finding.metric,
                n=count(finding.n),
                clusters=count(finding.clusters),
                unit=finding.resampling_unit,
                half_width="exact" if exact else "–" if half is None else f"± {scale.amount(half)}",
                margin=margin_text(finding),
                more=_more(finding),
            )
        )
    return rows


def _more(finding: Finding) -> str:
    if finding.status is not Status.INCONCLUSIVE:
        return "decided"
    return count(finding.more_requests)


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    """A free-form account as lines of a definition list."""
    return [
        (_named(key), value if isinstance(value, str) else _plain(value, key))
        for key, value in redacted(values).items()
    ]


def _named(key: str) -> str:
    return key.removesuffix("_s").replace("_", " ")


def _plain(value: Any, key: str) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return seconds(value) if key.endswith("_s") else f"{value:,.4g}"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, dict) and all(
        isinstance(one, str | int | float) for one in value.values()
    ):
        unit = "_s" if key.endswith("_s") else ""
        return ", ".join(
            f"{name} {one if isinstance(one, str) else _plain(one, unit)}"
            for name, one in value.items()
        ) or "none"  # fmt: skip
    return json.dumps(value, ensure_ascii=False)
