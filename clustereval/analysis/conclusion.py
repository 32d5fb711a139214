"""What decided findings add up to: each check's result, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from clustereval.core.findings import (
    CheckResult,
    Finding,
    Findings,
    Outcome,
    Status,
    Verdict,
)

HEALTH = "run_health"
NOT_OF_LOAD = ("model_quality", "streaming")
"""Checks that say nothing of what load does to answers: a pass that rests on them is none."""


def conclude(
    findings: list[Finding],
    required: Mapping[str, bool],
    unobserved: Mapping[str, str],
    *,
    counts: dict[str, int],
    context: dict[str, Any],
    interrupted: bool = False,
    remarks: Collection[str] = (),
) -> Findings:
    """Checks and verdict from decided findings.

    Args:
        required: check → whether the verdict needs it; its keys are the checks, in order.
        unobserved: check → why it could not look.
        interrupted: the run was cut short: its verdict is at best inconclusive.
        remarks: checks whose findings, none of which gates, are their result all the same.
    """
    results = [
        _result(name, needed, findings, unobserved.get(name), name in remarks)
        for name, needed in required.items()
    ]
    return Findings(
        verdict=_verdict(results, findings, interrupted, remarks),
        checks=results,
        findings=findings,
        counts=counts,
        context=context,
    )


def _result(
    name: str, required: bool, findings: list[Finding], unobserved: str | None, remark: bool
) -> CheckResult:
    if unobserved is not None:
        return CheckResult(
            check=name,
            required=required,
            status=Status.NOT_OBSERVED,
            sentence=f"not observed: {unobserved}",
            not_observed=unobserved,
        )
    gates = [(i, f) for i, f in enumerate(findings) if f.check == name and (f.gate or remark)]
    failed = [(i, f) for i, f in gates if f.status is Status.FAIL]
    undecided = [(i, f) for i, f in gates if f.status is not Status.PASS]
    if failed:
        status = Status.REMARK if remark else Status.FAIL
        index, deciding = max(failed, key=lambda item: _excess(item[1]))
    elif not gates:
        reason = "nothing that gates could be measured"
        return CheckResult(
            check=name, required=required, status=Status.INCONCLUSIVE, sentence=reason
        )
    elif undecided:
        status = Status.INCONCLUSIVE
        index, deciding = max(undecided, key=lambda item: _suspicion(item[1]))
    else:
        status, (index, deciding) = Status.PASS, max(gates, key=lambda item: _closeness(item[1]))
    return CheckResult(
        check=name, required=required, status=status, sentence=deciding.sentence, deciding=index
    )


def _excess(finding: Finding) -> float:
    """How far beyond its margin a failed finding certainly is, in margins."""
    return _in_margins(finding, finding.low)


def _closeness(finding: Finding) -> float:
    """How near to failing a passed one is: the upper bound in margins."""
    return _in_margins(finding, finding.high)


def _suspicion(finding: Finding) -> tuple[float, float]:
    """How bad an undecided finding looks; one without an estimate says least."""
    if finding.estimate is None:
        return float("-inf"), 0.0
    high = float("inf") if finding.high is None else _in_margins(finding, finding.high)
    return _in_margins(finding, finding.estimate), high


def _in_margins(finding: Finding, value: float | None) -> float:
    """A value in units of the finding's margin; factors on a log scale, where 1 is no effect."""
    if value is None or not finding.margin:
        return 0.0
    if finding.unit == "times":
        return math.log(max(value, 1e-9)) / math.log(finding.margin)
    return value / finding.margin


def _verdict(
    results: Sequence[CheckResult],
    findings: Sequence[Finding],
    interrupted: bool,
    advisory: Collection[str],
) -> Verdict:
    passed = [r for r in results if r.status is Status.PASS]
    failed = [r for r in results if r.status is Status.FAIL]
    health = [r for r in failed if r.check == HEALTH]
    tally = f"{len(passed)} of {len(results)} passed"
    open_ = [r for r in results if r.status in (Status.INCONCLUSIVE, Status.NOT_OBSERVED)]
    remarks = [r for r in results if r.status is Status.REMARK]
    summary = _summary(tally, open_, remarks, advisory)
    noticed = _noticed(findings, {r.check for r in (*failed, *remarks)})
    noticed += [f"a remark, so not failed: {r.sentence}" for r in remarks]
    others = [r for r in failed if r.check != HEALTH]
    if health:
        # What the target did is still worth reading, e.g. that it stalled until arrivals piled up.
        seen = [f"seen all the same, {r.check}: {r.sentence}" for r in others]
        return Verdict(
            outcome=Outcome.INVALID,
            sentence=f"the run is not valid: {health[0].sentence}",
            because=[r.sentence for r in health] + seen,
        )
    if others:
        worst = max(others, key=lambda result: _excess(findings[result.deciding or 0]))
        return Verdict(
            outcome=Outcome.FAIL,
            sentence=worst.sentence,
            because=[f"{r.check}: {r.sentence}" for r in others] + [summary, *noticed],
        )
    needed = [_open(r) for r in open_ if r.required or _looks_failed(r, findings)]
    decided = [r for r in passed if r.check != HEALTH]
    if interrupted:
        needed.insert(0, "the run was interrupted")
    elif not decided:
        needed.insert(0, "no check of the target was decided")
    elif all(r.check in NOT_OF_LOAD for r in decided) and any(
        r.status is Status.INCONCLUSIVE for r in open_
    ):
        # Required or not: a pass that only the idle target earned would be taken for a cluster's.
        needed.insert(0, "no check of the target under load was decided")
    outcome = Outcome.INCONCLUSIVE if needed else Outcome.PASS
    return Verdict(outcome=outcome, sentence=summary, because=(needed or [tally]) + noticed)


def _looks_failed(result: CheckResult, findings: Sequence[Finding]) -> bool:
    """Whether the estimate of an undecided check lies beyond its margin.

    Nothing is shown by that, but who reads *pass* would take it that nothing was seen.
    """
    if result.status is not Status.INCONCLUSIVE or result.deciding is None:
        return False
    deciding = findings[result.deciding]
    return _in_margins(deciding, deciding.estimate) > 1


def _noticed(findings: Sequence[Finding], failed: set[str]) -> list[str]:
    """Scores that an exploratory finding shows to drop, in checks whose gates did not fail.

    A replica that spoils one family of prompts moves the gated mean of all of them less than the
    margin; its own rubric shows it. That never decides, but a pass must not hide it.
    """
    found = [
        f
        for f in findings
        if not f.gate and f.status is Status.FAIL and f.unit == "ratio" and f.check not in failed
    ]
    if not found:
        return []
    worst = max(found, key=_excess)
    more = f"; {len(found) - 1} more such findings" if len(found) > 1 else ""
    return [f"exploratory, so not failed: {worst.sentence}{more}"]


def _open(result: CheckResult) -> str:
    if result.not_observed:
        return f"{result.check} not observed: {result.not_observed}"
    return f"{result.check} inconclusive: {result.sentence}"


def _summary(
    tally: str,
    open_: Sequence[CheckResult],
    remarks: Sequence[CheckResult],
    advisory: Collection[str],
) -> str:
    """The tally, then what stands open: in full what kept the verdict from being a pass.

    Checks that were not observed say why, unless they could only have made a remark; of the
    undecided only the first that was required gives its numbers, and the others are named: the
    rows under the verdict have theirs.
    """
    unseen = [r for r in open_ if r.status is Status.NOT_OBSERVED]
    required = [r for r in open_ if r.required and r.status is Status.INCONCLUSIVE]
    optional = [r for r in open_ if not r.required and r.status is Status.INCONCLUSIVE]
    parts = [tally, *(_open(result) for result in required[:1])]
    if required[1:]:
        parts.append(f"{_names(required[1:])} inconclusive as well")
    parts += [_open(result) for result in unseen if result.check not in advisory]
    if optional:
        parts.append(f"{_names(optional)} inconclusive (not required)")
    if quiet := [result for result in unseen if result.check in advisory]:
        parts.append(f"{_names(quiet)} not observed (not required)")
    if remarks:
        parts.append(f"{_names(remarks)} with a remark")
    return "; ".join(parts)


def _names(results: Sequence[CheckResult]) -> str:
    return ", ".join(result.check for result in results)
