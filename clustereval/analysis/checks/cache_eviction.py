"""Low and medium cache hit with high, on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clustereval.analysis import latency, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    answered,
    draft,
    latency_s,
    score_draft,
    score_drafts,
)
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import CacheEviction
from clustereval.core.findings import Finding, Status

FIDELITY = ("fidelity", "fidelity_prefix")
"""Divergence from the idle answer, which gates, and the position where it starts."""
WITHIN = ("saturation_bucket",)


class CacheEvictionCheck:
    """Score and divergence gate; TTFT is exploratory, since a miss must cost prefill time."""

    name = "cache_eviction"

    def evaluate(self, frames: Frames, settings: CacheEviction) -> Sequence[Draft] | NotObserved:
        buckets = frames.levels("cache_bucket")
        if not buckets:
            return NotObserved(
                "needs cached tokens in the responses' usage (vLLM: "
                "--enable-prompt-tokens-details) or the probe"
            )
        if "high" not in buckets or len(buckets) < 2:
            found = ", ".join(buckets)
            return NotObserved(f"needs cache hits both high and lower; all were {found}")
        base = Side(frames.where(cache_bucket="high"), {"cache_bucket": "high"}, "a high cache hit")
        drafts: list[Draft] = []
        for bucket in ("low", "medium"):
            if bucket not in buckets:
                continue
            mask = frames.where(cache_bucket=bucket)
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
        drafts += [
            score_draft(
                self.name, frames, rubric, (side, base), settings.divergence_margin,
                by="cache_bucket", within=WITHIN, gate=rubric == FIDELITY[0],
                scores=answered(frames, rubric), remedy=remedy,
            )
            for rubric in FIDELITY
            if rubric in frames.rubrics
        ]  # fmt: skip
        ratio = latency.quantile_ratio(
            frames, latency_s(frames, "ttft_due_s"), side.mask, base.mask, 0.95, by="cache_bucket"
        )
        ttft = draft(
            self.name,
            "ttft_due_s.p95",
            ratio,
            unit="times",
            effect="ratio to high cache hit",
            margin=frames.scenario.checks.traffic_drift.latency_factor,
            slice_=side.names,
            baseline=base.names,
            say=lambda f: wording.ratio_sentence(f, side.words, "p95 TTFT", base.words),
            gate=False,
        )
        return [*drafts, ttft]


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
