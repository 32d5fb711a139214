"""Whether the service was warm, and whether phases kept apart: told from the rows.

The marks are columns of the requests table (:mod:`clustereval.observe.warmth` and ``handover``);
here stands what they amount to. Cold and leaked *baseline* rows are no idle references, and
``Frames.baseline`` leaves them out. Under load they stay in: users meet cold replicas too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from clustereval.analysis.slices import Frames
from clustereval.core.goodput import ColdStart, Drift, Leaked, Warmup
from clustereval.observe.handover import leaks
from clustereval.observe.warmth import FIRST

EARLY: Final = 0.1
"""The part of the baseline that is held against the rest."""
ENOUGH: Final = 20
"""Fewer early requests tell no drift."""
DRIFT_P: Final = 0.01
DRIFT_RATIO: Final = 1.25
"""A smaller drift is none that would change an idle reference."""
SLOWEST: Final = 0.01


def warmup(requests: pd.DataFrame, frames: Frames) -> Warmup:
    """What was cold, what leaked, and whether the baseline drifts at its start.

    Args:
        requests: the whole table, warm-up included, with its marks.
        frames: of the same run.
    """
    cold, leaked = _cold_starts(requests), _leaks(requests)
    drift = _drift(requests)
    slow, slow_cold = _slowest(frames)
    baseline = requests[requests["role"] == "baseline"]
    marks = [baseline[name].fillna(False) for name in ("cold", "leaked") if name in baseline]
    out = int((marks[0] | marks[1]).sum()) if len(marks) == 2 else 0
    found = Warmup(
        sentences=[],
        enough=None if baseline.empty else _enough(cold, leaked, drift, baseline),
        baseline_left_out=out,
        cold=cold,
        leaks=leaked,
        drift=drift,
        slowest=slow,
        slowest_cold=slow_cold,
    )
    return found.model_copy(update={"sentences": _sentences(found, requests)})


def _cold_starts(requests: pd.DataFrame) -> list[ColdStart]:
    if "cold" not in requests:
        return []
    marked = requests[requests["cold"].fillna(False)]
    found = []
    for replica, rows in marked.groupby(marked["replica_id"].fillna("")):
        mine = requests[requests["replica_id"].fillna("") == replica]
        timed = mine[(mine["outcome"] == "ok") & mine["ttft_sent_s"].notna()]
        later = timed.sort_values("sent_s")["ttft_sent_s"].iloc[FIRST:]
        phases = rows["phase"].value_counts(sort=False)
        found.append(
            ColdStart(
                replica_id=str(replica) or None,
                n=len(rows),
                from_s=float(rows["sent_s"].min()),
                until_s=float(rows["first_token_s"].max()),
                slowest_s=float(rows["ttft_sent_s"].max()),
                usual_s=float(later.median()) if len(later) else None,
                phases={str(name): int(count) for name, count in phases.items()},
            )
        )
    return sorted(found, key=lambda start: start.from_s)


def _leaks(requests: pd.DataFrame) -> list[Leaked]:
    if "leaked" not in requests or not requests["leaked"].fillna(False).any():
        return []
    return [
        Leaked(
            phase=leak.into.phase,
            step=leak.into.step,
            source=leak.source,
            in_flight=leak.in_flight,
            n=len(leak.marked),
            of=len(leak.into.rows),
            lasted_s=leak.lasted_s,
        )
        for leak in leaks(requests)
    ]


def _drift(requests: pd.DataFrame) -> Drift | None:
    """The baseline's first tenth against the rest, each TTFT over that usual at its length.

    Cold and leaked rows are left out: they are told by themselves. Mann-Whitney's one-sided test on
    the ratios to the median of the prompt's quarter of uncached length.
    """
    marked = np.zeros(len(requests), dtype=bool)
    for name in ("cold", "leaked"):
        if name in requests:
            marked |= requests[name].fillna(False).to_numpy(dtype=bool)
    idle = requests[(requests["role"] == "baseline") & (requests["outcome"] == "ok") & ~marked]
    idle = idle[idle["ttft_sent_s"].notna()].sort_values("due_s")
    early = int(len(idle) * EARLY)
    if early < ENOUGH:
        return None
    ttft = idle["ttft_sent_s"].astype(float)
    size = idle["prompt_tokens"].astype("Float64") - idle["cached_tokens"].astype("Float64").fillna(
        0
    )
    quarter = pd.qcut(size.astype(float).rank(method="first"), 4, labels=False).fillna(-1)
    ratio = (ttft / ttft.groupby(quarter).transform("median")).to_numpy(dtype=float)
    test = stats.mannwhitneyu(ratio[:early], ratio[early:], alternative="greater")
    factor = float(np.median(ratio[:early]) / np.median(ratio[early:]))
    drifts = bool(test.pvalue < DRIFT_P and factor > DRIFT_RATIO)
    phase = str(idle["phase"].iloc[0])
    return Drift(phase=phase, ratio=factor, p_value=float(test.pvalue), n=early, drifts=drifts)


def _slowest(frames: Frames) -> tuple[int, int]:
    """(how many the slowest 1% of loaded requests are by TTFT from due, how many of them cold)."""
    ttft = frames.numbers("ttft_due_s")
    loaded = np.flatnonzero(frames.traffic & frames.ok & ~np.isnan(ttft))
    if not len(loaded):
        return 0, 0
    count = max(1, int(np.ceil(SLOWEST * len(loaded))))
    worst = loaded[np.argsort(-ttft[loaded], kind="stable")[:count]]
    return count, int(frames.marked("cold")[worst].sum())


def _enough(
    cold: list[ColdStart], leaked: list[Leaked], drift: Drift | None, baseline: pd.DataFrame
) -> bool | None:
    idle = set(baseline["phase"].astype(str))
    if any(idle & set(start.phases) for start in cold) or any(
        leak.phase in idle for leak in leaked
    ):
        return False
    marked = "cold" in baseline and bool(baseline["cold"].notna().any())
    if drift is None or not marked:
        return None
    return not drift.drifts


# -- in words --------------------------------------------------------------------------------


def _sentences(found: Warmup, requests: pd.DataFrame) -> list[str]:
    said = [*_of_cold(found, requests), *_of_leaks(found.leaks)]
    if found.drift is not None and found.drift.drifts:
        said.append(
            f"phase {found.drift.phase} begins {found.drift.ratio:.2f} times as slow as it goes on "
            f"(TTFT of its first {found.drift.n} requests at equal prompt length): the warm-up was "
            "too short"
        )
    if found.baseline_left_out:
        said.append(
            f"{found.baseline_left_out} idle requests are left out of every idle reference: they "
            "were cold, or met what an earlier phase left over"
        )
    if found.slowest_cold:
        said.append(
            f"of the slowest {found.slowest} loaded requests (1%) {found.slowest_cold} met a cold "
            "replica: that part of p99 is the start of replicas"
        )
    return said


def _of_cold(found: Warmup, requests: pd.DataFrame) -> list[str]:
    if not found.cold:
        return []
    total = sum(start.n for start in found.cold)
    worst = max(found.cold, key=lambda start: start.slowest_s)
    phases: dict[str, int] = {}
    for start in found.cold:
        for name, count in start.phases.items():
            phases[name] = phases.get(name, 0) + count
    where = ", ".join(f"{count} in {name}" for name, count in phases.items())
    usual = "" if worst.usual_s is None else f", later {_time(worst.usual_s)}"
    who = "the target" if worst.replica_id is None else f"replica {worst.replica_id}"
    said = (
        f"{_requests(total)} met a cold replica ({where}); the slowest waited "
        f"{_time(worst.slowest_s)} for a first token of {who}{usual}"
    )
    idle = set(requests.loc[requests["role"] == "baseline", "phase"].astype(str))
    if late := [name for name in phases if name in idle]:
        said += f"; no warm-up had reached it before {', '.join(late)}"
    return [said]


def _of_leaks(found: list[Leaked]) -> list[str]:
    return [
        f"{leak.source} leaked into {leak.phase}"
        f"{'' if leak.step is None else f', step {leak.step}'}: {leak.in_flight} requests were "
        f"still in flight when it began, and {leak.n} of its {leak.of} requests met them, for "
        f"{leak.lasted_s:.1f} s; a {_pause(leak)} as long would keep them apart"
        for leak in found
    ]


def _pause(leak: Leaked) -> str:
    within = leak.step is not None and leak.source.startswith(f"{leak.phase}, step ")
    return "`rest_s`" if within else "`settle_s` of the phase before it"


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"


def _time(value_s: float) -> str:
    return f"{1000 * value_s:.0f} ms" if value_s < 1 else f"{value_s:.2g} s"
