"""How much of a measured latency the load generator made itself. Pure.

Of a quantile q of latencies L with the client's own delays d, its share is 1 − q(L − d)/q(L): by
how much the quantile would have been lower, had the client been without delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clustereval.analysis.intervals import point_quantile
from clustereval.analysis.slices import Floats

QUANTILES: Final = (0.5, 0.99)
NEARLY_ALL: Final = 0.9
"""A core, or a machine, that is used more than this for a second has nothing left for a burst."""


@dataclass(frozen=True)
class ClientShare:
    """The client's share where it is largest: 0..1, of which quantile, and what that was."""

    ratio: float
    quantile: float
    measured_s: float
    n: int


def client_share(latency_s: Floats, delay_s: Floats) -> ClientShare | None:
    """The largest share over :data:`QUANTILES`; null where no row has both numbers.

    Args:
        latency_s: from *due*, shape (rows,), NaN where there is none.
        delay_s: the client's part of each, same shape.
    """
    known = ~np.isnan(latency_s) & ~np.isnan(delay_s)
    if not known.any():
        return None
    measured, own = latency_s[known], delay_s[known]
    shares = []
    for quantile in QUANTILES:
        with_s = point_quantile(np.sort(measured), quantile)
        without_s = point_quantile(np.sort(measured - own), quantile)
        if with_s is None or without_s is None or with_s <= 0:
            continue
        ratio = min(max(1 - without_s / with_s, 0.0), 1.0)
        shares.append(ClientShare(ratio, quantile, with_s, int(known.sum())))
    return max(shares, key=lambda share: share.ratio, default=None)


def remedy(load: Mapping[str, Any]) -> str:
    """What to change about a load generator that was slow, from what it says of itself.

    Where there are several processes, what counts is the one that used most of its core, and what
    its own machine had left.
    """
    workers = load.get("workers") or [load]
    busiest = max(workers, key=lambda worker: _ratio(worker, "cpu_ratio") or 0.0)
    machine, own = _ratio(busiest, "machine_cpu_ratio"), _ratio(busiest, "cpu_ratio")
    lower = "or lower the rate"
    if machine is not None and machine > NEARLY_ALL:
        used = f"this machine's cores were {machine:.0%} busy in the busiest second"
        return f"{used}: run the load from another machine, {lower}"
    if own is not None and own > NEARLY_ALL:
        used = f"the load process used {own:.0%} of a core in its busiest second"
        if _cores_left(busiest, machine):
            return f"{used}: replay with more processes (--processes), {lower}"
        return f"{used}, and its machine has no core left: add another one (--workers), {lower}"
    return "the load generator was slow: lower the rate, or run it on another machine"


def lost_workers(load: Mapping[str, Any]) -> str | None:
    """Which load processes were lost, and what to look at; null where none was."""
    lost = [worker for worker in load.get("workers") or () if worker.get("lost_s") is not None]
    if not lost:
        return None
    named = ", ".join(
        f"{worker.get('number')} on {worker.get('host')} after {worker['lost_s']:.0f} s"
        for worker in lost
    )
    return f"lost load processes: {named}; see their logs, and run it again"


def _cores_left(load: Mapping[str, Any], machine: float | None) -> bool:
    """Whether another process would find a core of its own; in doubt it would."""
    cores = load.get("cores")
    if machine is None or not isinstance(cores, int):
        return True
    return (1 - machine) * cores >= 1


def _ratio(load: Mapping[str, Any], name: str) -> float | None:
    value = load.get(f"{name}_highest_s", load.get(name))
    return float(value) if isinstance(value, int | float) else None
