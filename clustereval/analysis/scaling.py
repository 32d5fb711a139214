"""How fast replicas followed their target, and up to which saturation the service held."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clustereval.analysis import waits, wording
from clustereval.analysis.checks.base import latency_s
from clustereval.analysis.gates import Draft
from clustereval.analysis.intervals import point_quantile
from clustereval.analysis.slices import Floats, Frames
from clustereval.analysis.waits import Wait
from clustereval.core.checks import AutoscalingLag
from clustereval.core.findings import Finding

_BIN_ROWS = 20
"""Requests that a step of saturation needs before it is judged."""


class Rise(Wait):
    """One rise of the autoscaler's target: until as many replicas ran, or it was given up."""


def rises(cluster: pd.DataFrame) -> list[Rise] | None:
    """Every rise of ``target_replicas`` and how long it waited; None where not sampled."""
    found: list[Rise] = []
    sampled = False
    for _, samples in cluster.groupby(cluster["deployment"].fillna("")):
        target = series_of(samples, "target_replicas")
        running = series_of(samples, "replicas_running")
        if target is None or running is None:
            continue
        sampled = True
        found += _rises_of(target, running)
    return found if sampled else None


def series_of(samples: pd.DataFrame, metric: str) -> pd.Series | None:
    """One metric of a deployment over time, from the source that sampled it most."""
    mine = samples[(samples["metric"] == metric) & samples["value"].notna()]
    if mine.empty:
        return None
    source = mine["source"].value_counts().index[0]
    mine = mine[mine["source"] == source].sort_values("t_s")
    series: pd.Series = mine.groupby("t_s")["value"].last()
    return series


def _rises_of(target: pd.Series, running: pd.Series) -> list[Rise]:
    times = target.index.to_numpy(dtype=float)
    wanted = target.to_numpy(dtype=float)
    run_times = running.index.to_numpy(dtype=float)
    ran = running.to_numpy(dtype=float)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    found = []
    for index in np.flatnonzero(np.diff(wanted) > 0) + 1:
        start, need = times[index], wanted[index]
        ready = run_times[(run_times >= start) & (ran >= need)]
        given_up = times[(times > start) & (wanted < need)]
        end = max(run_times[-1], times[-1])
        stop = min(given_up[0] if len(given_up) else end, end)
        if len(ready) and ready[0] <= stop:
            found.append(Rise(start, ready[0] - start, ended=True, step_s=step))
        else:
            found.append(Rise(start, stop - start, ended=False, step_s=step))
    return found


def draft_of(check: str, rises: list[Rise] | None, limit_s: float) -> Draft:
    """The slowest rise against its limit."""
    return waits.draft_of(
        rises,
        check=check,
        metric="scale_up_s",
        limit_s=limit_s,
        effect="from the target's rise to as many running replicas, slowest",
        unit="rise of the target",
        unsampled="time to scale up not observed: needs the Ray dashboard, which knows the target",
        none="the autoscaler never asked for more replicas, so scaling up was not tried",
        say=_sentence,
        remedy=_remedy,
    )


def _sentence(finding: Finding, worst: Rise) -> str:
    took = wording.amount(worst.wait_s, "s")
    what = (
        f"the replicas asked for at {worst.at_s:.0f} s ran {took} later"
        if worst.ended
        else f"the replicas asked for at {worst.at_s:.0f} s had not come after {took}"
    )
    undecided = wording.ending(finding)
    return f"{what} (limit {finding.margin:g} s; {_of(finding.n)}){undecided}"


def _of(rises: int) -> str:
    return f"slowest of {rises} rises" if rises > 1 else "the only rise"


def _remedy(worst: Rise) -> str:
    if not worst.ended:
        return "the cluster could not place the replicas: check its free resources and max_replicas"
    return (
        f"new replicas need {worst.wait_s:.0f} s: keep one more running (min_replicas), or shorten "
        "their start (model weights on local disk, compile cache)"
    )


def highest_saturation(frames: Frames, settings: AutoscalingLag) -> str:
    """The highest saturation up to which quality and TTFT both held, as a setting to try.

    Requests of traffic are taken in steps of one request per replica. A step holds where its TTFT
    at ``quantile`` is within the limit, fewer than the margin got no answer, and the first rubric
    is within the margin of the idle mean of the same prompts (point estimates of at least 20
    requests: a suggestion, not a finding).
    """
    saturation = frames.numbers("saturation")
    known = frames.traffic & ~np.isnan(saturation)
    if not known.any():
        return ""
    ttft = latency_s(frames, "ttft_due_s")
    lost = _lost(frames, settings.rubrics[0])
    held: float | None = None
    steps = np.floor(np.where(known, saturation, -1)).astype(int)
    for step in range(int(steps.max()) + 1):
        rows = known & (steps == step)
        if rows.sum() < _BIN_ROWS:
            continue
        times, losses = ttft[rows & ~np.isnan(ttft)], lost[rows & ~np.isnan(lost)]
        fast = (
            len(times) > 0 and point_quantile(np.sort(times), settings.quantile) < settings.ttft_s
        )
        right = len(losses) == 0 or losses.mean() < settings.score_margin
        gone = int((rows & ~frames.ok).sum())  # one alone says nothing of a step
        answers = gone < 2 or gone / rows.sum() < settings.error_margin
        if not (fast and right and answers):
            break
        held = step + 1
    if held is None:
        return (
            "quality, TTFT or answers at all did not hold even at the lowest load: "
            "it is not the saturation"
        )
    text = f"quality, TTFT and answers at all held up to {held:g} requests per replica: "
    now = frames.cluster[frames.cluster["metric"] == "target_ongoing_requests"]["value"].dropna()
    if len(now) == 0 or now.iloc[-1] > held:
        current = f" (now {now.iloc[-1]:g})" if len(now) else ""
        return f"{text}set target_ongoing_requests to at most {held:g}{current}"
    # The autoscaler aims lower already; what arrived meanwhile must be turned away or absorbed.
    peak = float(np.nanquantile(saturation[known], 0.95))
    return (
        f"{text}the autoscaler aims at {now.iloc[-1]:g}, but p95 was {peak:.0f}: cap it with "
        f"max_ongoing_requests {held:g} and max_queued_requests, or keep more replicas running "
        "(min_replicas)"
    )


def _lost(frames: Frames, rubric: str) -> Floats:
    """Idle mean of the row's own prompt minus the row's score; NaN where either is missing."""
    scores = frames.rubrics.get(rubric)
    if scores is None:
        return np.full(len(frames), np.nan)
    idle = frames.baseline & scores.scored & (frames.content >= 0)
    size = int(frames.content.max(initial=0)) + 1
    count = np.bincount(frames.content[idle], minlength=size)
    total = np.bincount(frames.content[idle], weights=scores.value[idle], minlength=size)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    lost: Floats = mean[frames.content] - scores.value
    return lost
