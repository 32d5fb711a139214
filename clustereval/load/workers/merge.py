"""One account of a load out of those of its workers. Pure.

Counts are added. What tells of a load generator's own trouble is that of the worker which had most
of it: a worker that was late is not made good by others that were not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

Account = dict[str, Any]

_ADDED: Final = ("planned", "recorded", "client_faults", "max_in_flight", "resent")
_COUNTS: Final = ("outcomes", "error_types")
_HIGHEST: Final = (
    *("elapsed_s", "cpu_ratio", "cpu_ratio_highest_s"),
    *("machine_cpu_ratio", "machine_cpu_ratio_highest_s", "cores"),
)
_LOWEST: Final = ("stamped_reads_ratio",)
_QUANTILES: Final = ("scheduler_lag_s", "loop_lag_s")


def merged(workers: Sequence[Account]) -> Account:
    """The account of all, with each one's own under ``workers``.

    ``max_in_flight`` is at most what was in flight at any moment: each worker's was at its own.
    """
    told: Account = {}
    for name in _ADDED:
        _put(told, name, workers, sum)
    for name in _COUNTS:
        counts: Counter[str] = Counter()
        for worker in workers:
            counts.update(worker.get(name) or {})
        told[name] = dict(counts)
    told["interrupted"] = any(worker.get("interrupted") for worker in workers)
    for name in _HIGHEST:
        _put(told, name, workers, max)
    for name in _LOWEST:
        _put(told, name, workers, min)
    for name in _QUANTILES:
        known = [worker[name] for worker in workers if worker.get(name)]
        told[name] = max(known, key=lambda quantiles: quantiles["p99"]) if known else None
    versions = [worker["versions"] for worker in workers if worker.get("versions")]
    told["versions"] = versions[0] if versions else {}
    errors = [worker.get("clock", {}).get("error_s") for worker in workers]
    told["clock_error_s"] = max((e for e in errors if e is not None), default=None)
    told["workers_lost"] = sum(worker.get("lost_s") is not None for worker in workers)
    told["workers"] = list(workers)
    return told


def _put(told: Account, name: str, workers: Sequence[Account], join: Any) -> None:
    values = [worker[name] for worker in workers if worker.get(name) is not None]
    if values:
        told[name] = join(values)
    elif any(name in worker for worker in workers):
        told[name] = None
