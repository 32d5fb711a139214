"""From drafts to findings: multiplicity, the interval's two tails, and the status.

The declared hypotheses of a run (``gate=True``) form one family. Each is a one-sided test of "the
effect is below its margin"; Holm's step-down procedure bounds by ``(1 - confidence) / 2`` the
chance that *any* of them fails a target whose every effect lies below its margin: a gate fails
exactly where ``p_adjusted <= (1 - confidence) / 2``. A healthy target, whose effects are near zero
and not at the margin, fails far more rarely.

A stated interval splits its error unevenly: the lower tail gets its Holm share (at most half), the
upper tail what is left. So it is a ``confidence`` interval like any other, its lower
end agrees with the adjusted test, and passing costs no power to multiplicity: declaring more gates
makes failing harder, never passing (all gates of a check must pass, an intersection-union test
that needs no adjustment).

Exploratory findings get Benjamini-Hochberg's step-up procedure instead, with the bounds of
Benjamini & Yekutieli 2005 (JASA 100:71) for the selected ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clustereval.analysis.designs import Design
from clustereval.analysis.intervals import Bounds, critical, p_at_least
from clustereval.core.findings import Finding, Status, Warning, WarningCode

Say = Callable[[Finding], str]


@dataclass(frozen=True)
class Draft:
    """A finding before the run's other findings are known.

    Attributes:
        finding: everything but interval, p and status.
        bounds: tail → (low, high); None where nothing could be estimated or all is known.
        say: the finding's sentence, once it is decided.
        remedy: what to change, for one that failed or is undecided.
        design: makes what the estimate rests on; None where there is none.
        slice_n: requests of the slice alone. df: degrees of freedom of its variance.
    """

    finding: Finding
    bounds: Callable[[float], Bounds] | None
    say: Say
    remedy: Say = field(default=lambda _: "")
    design: Callable[[], Design] | None = None
    slice_n: int = 0
    df: float = math.inf


def decide(drafts: Sequence[Draft], confidence: float) -> list[Finding]:
    """Findings with intervals, p-values, status and sentence, in the order of ``drafts``."""
    alpha = 1 - confidence
    family_alpha = alpha / 2
    p_values = [_p(draft) for draft in drafts]
    tails: dict[int, tuple[float, float | None]] = {}
    for gate, procedure in ((True, _holm), (False, _benjamini_hochberg)):
        family = [
            index
            for index, draft in enumerate(drafts)
            if draft.finding.gate is gate and p_values[index] is not None
        ]
        ps = [p_values[index] or 0.0 for index in family]
        for index, (tail, adjusted) in zip(family, procedure(ps, family_alpha), strict=True):
            tails[index] = (tail, adjusted)
    return [
        _settle(draft, p_values[index], *tails.get(index, (alpha / 2, None)), alpha=alpha)
        for index, draft in enumerate(drafts)
    ]


def _p(draft: Draft) -> float | None:
    if draft.bounds is None or draft.finding.margin is None:
        return None
    return p_at_least(draft.bounds, draft.finding.margin)


def _holm(ps: Sequence[float], alpha: float) -> list[tuple[float, float]]:
    """(tail of the lower bound, adjusted p) of each, by Holm 1979 (Scand J Stat 6:65)."""
    count = len(ps)
    out: list[tuple[float, float]] = [(alpha, 1.0)] * count
    running, rejecting, tail = 0.0, True, alpha
    for rank, index in enumerate(sorted(range(count), key=lambda i: ps[i])):
        running = max(running, min(1.0, (count - rank) * ps[index]))
        if rejecting:
            tail = alpha / (count - rank)
            rejecting = ps[index] <= tail
        out[index] = (tail, running)
    return out


def _benjamini_hochberg(ps: Sequence[float], alpha: float) -> list[tuple[float, float]]:
    """(tail of the lower bound, adjusted p) of each, by Benjamini & Hochberg 1995."""
    count = len(ps)
    order = sorted(range(count), key=lambda i: ps[i])
    adjusted = [1.0] * count
    running = 1.0
    for rank in range(count, 0, -1):
        running = min(running, ps[order[rank - 1]] * count / rank)
        adjusted[order[rank - 1]] = running
    selected = sum(value <= alpha for value in adjusted)
    tail = alpha * max(selected, 1) / max(count, 1)
    return [(tail, value) for value in adjusted]


def _settle(
    draft: Draft, p_value: float | None, tail: float, adjusted: float | None, *, alpha: float
) -> Finding:
    finding = draft.finding
    low, high = finding.low, finding.high
    if draft.bounds is not None:
        low, high = draft.bounds(tail)[0], draft.bounds(alpha - tail)[1]
    update: dict[str, object] = {
        "low": low,
        "high": high,
        "confidence": 1 - alpha,
        "p_value": p_value,
        "p_adjusted": adjusted,
        "status": status(low, high, finding.margin),
    }
    if not finding.gate and update["status"] is Status.FAIL:
        exploratory = Warning(code=WarningCode.EXPLORATORY)
        update["warnings"] = [*finding.warnings, exploratory]
    finding = finding.model_copy(update=update)
    more = None
    if finding.status is Status.INCONCLUSIVE and draft.bounds is None:
        more = finding.more_requests  # a census is not made sharper by more of the same
    elif finding.status is Status.INCONCLUSIVE:
        more = finding.more_requests or more_requests(draft, finding, tail, alpha)
    finding = finding.model_copy(update={"more_requests": more})
    finding = finding.model_copy(update={"sentence": draft.say(finding)})
    if finding.status is not Status.PASS:
        finding = finding.model_copy(update={"remedy": draft.remedy(finding)})
    return finding


def status(low: float | None, high: float | None, margin: float | None) -> Status:
    """Fail where the effect is shown to reach the margin, pass where shown to stay below it."""
    if margin is None:
        return Status.INCONCLUSIVE
    if low is not None and low >= margin:
        return Status.FAIL
    if high is not None and high < margin:
        return Status.PASS
    return Status.INCONCLUSIVE


def more_requests(draft: Draft, finding: Finding, tail: float, alpha: float) -> int | None:
    """Further requests of the slice after which it would be decided with 80% power.

    An interval's half width falls with the square root of n, and Student's t with the number of
    load windows, so n must grow by ``((t_more + z_.2) / t * half / distance to the margin)^2``,
    where the true effect is taken to be the estimate, and further requests come in further windows.
    Where nothing was lost so far the exact bound ``1 - tail^(1/n)`` is turned round. None where the
    estimate lies so near the margin that no number would do, or nothing was measured.
    """
    estimate, margin = finding.estimate, finding.margin
    if estimate is None or margin is None or draft.slice_n == 0:
        return None
    bound, level = (finding.high, alpha - tail) if estimate < margin else (finding.low, tail)
    distance = abs(margin - estimate)
    if bound is None or distance < 0.02 * margin:
        return None
    if estimate == 0 and finding.unit == "ratio" and bound < 1:
        growth = math.log1p(-bound) / math.log1p(-margin)
    else:
        growth = _growth(abs(bound - estimate) / distance, level, draft.df)
    more = math.ceil(draft.slice_n * max(growth - 1, 0.05)) + 1
    return more if more < 10_000_000 else None


def _growth(needed: float, level: float, df: float) -> float:
    """How many times the requests are needed; ``needed`` is half width over distance."""
    now, growth = critical(level, min(df, 1e6)), 1.0
    for _ in range(30):  # each round brings t nearer to that of so many windows
        then = critical(level, min((df + 1) * growth - 1, 1e6))
        growth = max(((then + critical(0.2)) / now * needed) ** 2, 1.0)
    return growth
