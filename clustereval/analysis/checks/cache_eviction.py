"""What the prefix cache loses under load, and what answers and TTFT make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clustereval.analysis import contrasts, engines, latency, rates, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    draft,
    latency_s,
    score_draft,
    score_drafts,
)
from clustereval.analysis.divergence import Divergence, divergences
from clustereval.analysis.estimates import MIN_PAIRS
from clustereval.analysis.gates import Draft, Say
from clustereval.analysis.slices import NOT_APPLICABLE, SCORED, Floats, Frames, Mask, Rubric
from clustereval.core.checks import CacheEviction
from clustereval.core.findings import Finding, Status

FIDELITY = ("fidelity", "fidelity_prefix")
"""Judged as divergence, which knows harmful from harmless."""
WITHIN = ("saturation_bucket",)
HIT = "cache_hit_ratio"
ORDER = ("low", "medium", "high")
UNSEEN = 0.02
FULL = 0.9
"""KV use from which memory is what a cache lacks; below it, running requests left room."""


class CacheEvictionCheck:
    """Score, divergence and lost hits gate; TTFT is exploratory, for a miss must cost prefill.

    Engines differ in what a missed prefix costs: one with a fault answers worse, a sound one only
    later. So it is judged by itself whether prompts still find what they found before.
    """

    name = "cache_eviction"

    def evaluate(self, frames: Frames, settings: CacheEviction) -> Sequence[Draft] | NotObserved:
        buckets = [name for name in ORDER if name in frames.levels("cache_bucket")]
        if not buckets:
            return NotObserved(
                "needs cached tokens in the responses' usage (vLLM: "
                "--enable-prompt-tokens-details) or the probe"
            )
        again = Again.of(frames)
        drafts = [] if again is None else self._lost(frames, settings, again)
        if len(buckets) < 2 and not drafts:
            return NotObserved(_why(frames, buckets))
        # Of an engine with coarse blocks no prompt may reach the highest bucket.
        best, judged = buckets[-1], ~frames.stepped
        base = Side(
            judged & frames.where(cache_bucket=best), {"cache_bucket": best}, f"a {best} cache hit"
        )
        for bucket in buckets[:-1]:
            mask = judged & frames.where(cache_bucket=bucket)
            side = Side(mask, {"cache_bucket": bucket}, f"a {bucket} cache hit")
            drafts += self._bucket(frames, settings, side, base)
        return drafts

    def _bucket(
        self, frames: Frames, settings: CacheEviction, side: Side, base: Side
    ) -> list[Draft]:
        def remedy(finding: Finding) -> str:
            return _remedy(frames, finding, str(side.names["cache_bucket"]))

        drafts = score_drafts(
            self.name, frames, settings.rubrics, (side, base), settings.score_margin,
            by="cache_bucket", within=WITHIN, remedy=remedy, leave_out=FIDELITY,
        )  # fmt: skip
        for kind in divergences(frames):
            made = score_draft(
                self.name, frames, kind.name, (side, base), settings.divergence_margin,
                by="cache_bucket", within=WITHIN, gate=kind.gate, scores=kind.scores,
                remedy=remedy,
            )  # fmt: skip
            drafts.append(replace(made, say=_diverging(kind, side, base)))
        return drafts + self._slower(frames, settings, side, base)

    def _slower(
        self, frames: Frames, settings: CacheEviction, side: Side, base: Side
    ) -> list[Draft]:
        """TTFT, and prefill where the engine states it: that leaves the queue out."""
        # Prompts that hit little by their nature are not what was evicted.
        common = np.intersect1d(frames.content[side.mask], frames.content[base.mask])
        shared = np.isin(frames.content, common[common >= 0])
        prefill = np.where(frames.ok, frames.numbers("engine_prefill_s"), np.nan)
        sides = (side.mask & shared, base.mask & shared)
        wanted: list[tuple[str, str, Floats, float]] = [
            ("ttft_due_s", "TTFT", latency_s(frames, "ttft_due_s"), q) for q in (0.5, 0.95)
        ]
        if all((~np.isnan(prefill) & mask).any() for mask in sides):
            wanted.append(("engine_prefill_s", "prefill", prefill, 0.5))
        return [
            self._ratio(frames, settings, (side, base), sides, column, what, times_s, q)
            for column, what, times_s, q in wanted
        ]

    def _ratio(
        self, frames: Frames, settings: CacheEviction, named: tuple[Side, Side],
        sides: tuple[Mask, Mask], column: str, what: str, times_s: Floats, q: float,
    ) -> Draft:  # fmt: skip
        side, base = named
        p = f"p{100 * q:g}"
        return draft(
            self.name, f"{column}.{p}",
            latency.quantile_ratio(frames, times_s, *sides, q, by="cache_bucket"), unit="times",
            effect=f"ratio to {base.words}, same prompts", margin=settings.ttft_factor,
            slice_=side.names, baseline=base.names, gate=False,
            say=lambda f: wording.ratio_sentence(f, side.words, f"{p} {what}", base.words),
            remedy=lambda f: _capacity(frames, f),
        )  # fmt: skip

    def _lost(self, frames: Frames, settings: CacheEviction, again: Again) -> list[Draft]:
        """What prompts that a replica knew no longer find there; and whether load is why."""
        # Evicted is what was asked for longest ago: a matter of order, not of the prompt.
        estimate = rates.rate(frames, again.best - again.hit, again.rows & frames.traffic)
        if estimate.value is None:
            return []
        found = float(again.hit[again.rows & frames.traffic].mean())
        lost = draft(
            self.name, HIT, replace(estimate, observed=found, reference=found + estimate.value),
            unit="ratio", effect="cache hit lost by prompts asked again of the same replica",
            margin=settings.hit_margin, slice_={"role": "traffic"},
            baseline={HIT: "best of the prompt"},
            say=_lost_sentence, remedy=lambda f: _capacity(frames, f),
        )  # fmt: skip
        busy = frames.traffic & frames.where(saturation_bucket=("saturating", "scaling"))
        calm = frames.baseline | frames.where(saturation_bucket=("idle", "warm"))
        known = np.where(again.rows, SCORED, NOT_APPLICABLE).astype(np.int8)
        hits = Rubric(np.where(again.rows, again.hit, np.nan), known)
        drop = contrasts.score_drop(frames, hits, busy, calm & ~busy, by="saturation_bucket")
        if drop.clusters < MIN_PAIRS:
            return [lost]
        loaded = draft(
            self.name, f"{HIT}.loaded", drop, unit="ratio",
            effect="cache hit lost under load, same prompts asked again", gate=False,
            margin=settings.hit_margin, slice_={"saturation_bucket": "saturating, scaling"},
            baseline={"saturation_bucket": "idle, warm"},
            say=_loaded_sentence, remedy=lambda f: _capacity(frames, f),
        )  # fmt: skip
        return [lost, loaded]


@dataclass(frozen=True)
class Again:
    """Requests whose prompt their own replica had answered before: they could hit.

    Attributes:
        rows: which; shape (rows,), as the others.
        hit: cache-hit ratio. best: the highest that the same prompt found anywhere in the run.
    """

    rows: Mask
    hit: Floats
    best: Floats

    @classmethod
    def of(cls, frames: Frames) -> Again | None:
        """None where no replica was seen, or nothing was ever found in a cache.

        The first time a replica is asked something it cannot hit, however large its cache is.
        """
        hit = frames.numbers(HIT)
        replica = frames.factors["replica_id"]
        known = ~np.isnan(hit) & replica.known & (frames.content >= 0) & frames.ok
        if not (hit[known] > 0).any():
            return None
        place = frames.content * len(replica.levels) + replica.codes
        answered_s = np.full(int(place[known].max()) + 1, np.inf)
        np.minimum.at(answered_s, place[known], frames.numbers("end_s")[known])
        best = np.zeros(int(frames.content[known].max()) + 1)
        np.maximum.at(best, frames.content[known], hit[known])
        rows = np.zeros(len(frames), dtype=bool)
        rows[known] = frames.numbers("sent_s")[known] > answered_s[place[known]]
        highest = np.full(len(frames), np.nan)
        highest[known] = best[frames.content[known]]
        rows &= highest > 0
        return cls(rows, np.where(rows, hit, np.nan), highest) if rows.any() else None


def _why(frames: Frames, buckets: Sequence[str]) -> str:
    hit = frames.numbers(HIT)
    if not (hit > 0).any():
        return "no request found anything in a prefix cache: it is off, or too small to keep any"
    seen = "" if frames.factors["replica_id"].known.any() else ", or to see which replica answered"
    return f"needs cache hits both high and lower{seen}; all were {', '.join(buckets)}"


def _diverging(kind: Divergence, side: Side, base: Side) -> Say:
    words = ("answers", kind.verb)
    return lambda f: wording.share_sentence(f, f"at {side.words}", words, f"at {base.words}")


def _lost_sentence(finding: Finding) -> str:
    less = wording.amount(finding.estimate, "ratio")
    return (
        f"asked again of the same replica, prompts find {less} less of their tokens in its cache "
        f"than they did at best ({wording.interval(finding)}){wording.ending(finding)}"
    )


def _loaded_sentence(finding: Finding) -> str:
    size = wording.amount(abs(finding.estimate or 0.0), "ratio")
    way = "less" if (finding.estimate or 0.0) > 0 else "more"
    return (
        f"on a saturated replica, prompts that it knew find {size} {way} of their tokens in its "
        f"cache than at low load ({wording.interval(finding)}){wording.ending(finding)}"
    )


def _capacity(frames: Frames, finding: Finding) -> str:
    """What the memory looked like, and which of its settings that speaks for."""
    if finding.status is not Status.FAIL:
        return ""
    used = engines.kv_peak(frames.cluster, frames.rows)
    thrown = engines.counted(frames.cluster, "preemptions")
    if used is not None and used < UNSEEN:
        used = None  # requests shorter than the interval at which gauges are renewed
    measured = [] if used is None else [f"KV cache use peaked at {used:.0%}"]
    if thrown is not None:
        measured.append(f"{thrown:.0f} requests were preempted" if thrown else "none was preempted")
    said = f"{', '.join(measured)}: " if measured else ""
    if thrown or used is None or used >= FULL:
        return (
            f"{said}raise the KV memory (gpu_memory_utilization, num_gpu_blocks_override; on a CPU "
            "VLLM_CPU_KVCACHE_SPACE), or lower max_num_seqs, which leaves more of it to prefixes"
        )
    return (
        f"{said}running requests left room, so the prefixes themselves do not fit: raise the KV "
        "memory, or route each prefix to one replica (PrefixCacheAffinityRouter)"
    )


def _remedy(frames: Frames, finding: Finding, bucket: str) -> str:
    if finding.status is not Status.FAIL:
        return ""
    share = float(
        frames.where(cache_bucket=bucket).sum() / max(frames.factors["cache_bucket"].known.sum(), 1)
    )
    text = f"{wording.percent(share)} of requests meet {bucket} cache hit; "
    usage = frames.numbers("kv_cache_usage")[frames.where(cache_bucket=bucket)]
    if not np.isnan(usage).all():
        text += f"KV cache use there is {np.nanmedian(usage):.0%} in the median; "
    return text + (
        "repeat the run with prefix caching off: if the drop goes, the cached blocks are at fault; "
        "else raise the KV memory or route prefixes to the replica that holds them"
    )
