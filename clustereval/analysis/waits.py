"""Waits that were timed by sampling: the longest one against its limit, as a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clustereval.analysis.gates import Draft
from clustereval.core.findings import Finding, Status


@dataclass(frozen=True)
class Wait:
    """One wait.

    Attributes:
        at_s: when it began. wait_s: how long it was seen to last.
        ended: whether its end was seen. step_s: the sampling interval.
    """

    at_s: float
    wait_s: float
    ended: bool
    step_s: float


W = TypeVar("W", bound=Wait)


def draft_of(
    waits: Sequence[W] | None,
    *,
    check: str,
    metric: str,
    limit_s: float,
    effect: str,
    unit: str,
    unsampled: str,
    none: str,
    say: Callable[[Finding, W], str],
    remedy: Callable[[W], str],
) -> Draft:
    """A census of the run's waits, to a sample's precision: the longest against the limit.

    One whose end was not seen is no shorter than that, so it can fail but not pass. Where nothing
    was sampled, or nothing waited, the finding says so and does not gate.

    Args:
        unit: what waited, in the singular. unsampled: what to say where ``waits`` is None.
        none: what to say where there was no wait. say, remedy: of the longest.
    """
    longest = max(waits or (), key=lambda wait: (wait.wait_s, not wait.ended), default=None)
    finding = Finding(
        check=check,
        metric=metric,
        unit="s",
        effect=effect,
        slice={} if longest is None else {"at_s": round(longest.at_s, 1)},
        margin=limit_s,
        n=len(waits or ()),
        clusters=len(waits or ()),
        resampling_unit=unit,
        method="census, to the precision of the sampling interval",
        gate=longest is not None,
    )
    if longest is None:
        return Draft(finding, None, lambda _: unsampled if waits is None else none)
    step = longest.step_s if longest.ended else 0.0
    finding = finding.model_copy(
        update={
            "observed": longest.wait_s,
            "estimate": longest.wait_s,
            "low": max(0.0, longest.wait_s - step),
            "high": longest.wait_s + step if longest.ended else None,
        }
    )
    return Draft(
        finding,
        None,
        lambda f: say(f, longest),
        lambda f: remedy(longest) if f.status is Status.FAIL else "",
    )
