"""Whether tokens reach the client as they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clustereval.analysis import rates, wording
from clustereval.analysis.checks.base import NotObserved, draft
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.analysis.streams import (
    MIN_STREAMS,
    MIN_TOKENS,
    Batcher,
    Streams,
    held_back,
    recognise,
)
from clustereval.core.checks import Streaming
from clustereval.core.findings import Finding, Status

OFF = "in Ray Serve LLM set `experimental_configs={'stream_batching_interval_ms': 0}`"


class StreamingCheck:
    """A remark, unless the scenario requires it: a batcher is a setting that may be wanted.

    What it costs is in TTFT, which other checks judge. Recognised at idle where enough idle
    answers were streamed, for there nothing else holds tokens back; counted over all.
    """

    name = "streaming"

    def evaluate(self, frames: Frames, settings: Streaming) -> Sequence[Draft] | NotObserved:
        # Parsers of tool calls hold tokens back until they make a call, batcher or not.
        prose = frames.ok & frames.rows["tool_calls"].isna().to_numpy(dtype=bool)
        streams = Streams.of(
            frames.rows["itl_s"].where(prose, None), frames.numbers("output_tokens")
        )
        told = streams.telling & prose
        if told.sum() < MIN_STREAMS:
            return NotObserved(
                f"needs {MIN_STREAMS} streamed answers of {MIN_TOKENS} tokens or more, tool calls "
                f"left out; found {int(told.sum())}"
            )
        idle = told & (frames.baseline | frames.where(saturation_bucket="idle"))
        among = idle if idle.sum() >= MIN_STREAMS else told
        batcher = recognise(streams, frames.numbers("ttft_sent_s"), among)
        # Every held answer is as good an example as any, and none of them is among the worst.
        estimate = replace(rates.rate(frames, held_back(streams, batcher), told), evidence=())
        return [
            draft(
                self.name, "held_back", estimate, unit="ratio",
                effect="share of streamed answers that came in lumps", margin=settings.held_margin,
                slice_={}, gate=settings.required,
                say=lambda f: _sentence(f, batcher), remedy=lambda f: _remedy(f, batcher),
            )
        ]  # fmt: skip


def _sentence(finding: Finding, batcher: Batcher | None) -> str:
    numbers = wording.interval(finding, sign="%", limit="allowed")
    if batcher is None or not finding.estimate:
        return f"tokens arrive as they are made ({numbers}){wording.ending(finding)}"
    said = f"{wording.percent(finding.estimate)} of streamed answers were held back"
    if batcher.interval_s is None or batcher.apart_s is None:
        said += f" and came at once, {batcher.tokens:.0f} tokens in one piece, so TTFT is E2E"
    else:
        said += (
            f" by a batcher of about {_rounded(batcher)} ms: chunks come "
            f"{1000 * batcher.apart_s:.0f} ms apart and bring {batcher.tokens:.0f} tokens each"
        )
        said += "; TTFT measures it" if batcher.holds_first else ""
    return f"{said} ({numbers}){wording.ending(finding)}"


def _rounded(batcher: Batcher) -> int:
    """The beat in ms, as someone would have set it."""
    beat = 1000 * (batcher.interval_s or 0.0)
    return round(beat / 5) * 5 if beat >= 20 else round(beat)


def _remedy(finding: Finding, batcher: Batcher | None) -> str:
    if finding.status is not Status.FAIL or batcher is None:
        return ""
    if batcher.interval_s is None:
        return f"{OFF}; elsewhere look for a proxy that buffers (nginx: proxy_buffering off)"
    if not batcher.holds_first:
        return f"{OFF}; the first token is not held, so look at vLLM's stream_interval as well"
    return OFF
