"""Synthetic stepped runs with known shares of late and wrong answers, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from clustereval.analysis.slices import Frames, build_frames
from clustereval.core.columns import REQUESTS, SCORES
from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream

PROMPTS = 200
SLO = {"ttft_s": 1.0, "e2e_s": 3.0, "score": 0.85}


@dataclass(frozen=True)
class Step:
    """One step: its rate, and the true shares of its requests that are late, wrong or fail."""

    rate: float
    late: float = 0.0
    wrong: float = 0.02
    failed: float = 0.0


@dataclass(frozen=True)
class Ladder:
    """A stepped phase. ``icc``: part of lateness that the requests of half a second share."""

    steps: Sequence[Step]
    step_s: float = 20.0
    icc: float = 0.0
    unscored: float = 0.0
    slo: dict[str, Any] = field(default_factory=lambda: dict(SLO))

    def scenario(self, **changes: Any) -> Scenario:
        rates = [step.rate for step in self.steps]
        data: dict[str, Any] = {
            "name": "ladder",
            "prompt_sets": {"golden": "golden.jsonl"},
            "tenants": [{"name": "acme", "share": 1, "slo": self.slo}],
            "phases": [
                {
                    "name": "climb",
                    "duration_s": self.step_s * len(rates),
                    "arrivals": {"process": "steps", "rates": rates},
                }
            ],
        }
        return Scenario.model_validate({**data, **changes})

    def tables(self, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(requests, scores) of one run."""
        rng = substream(seed, "ladder")
        parts = [self._step(number, step, rng) for number, step in enumerate(self.steps)]
        frame = pd.concat(parts, ignore_index=True)
        frame["request_id"] = [f"q-{index}" for index in range(len(frame))]
        right = frame.pop("right")
        scored = (frame.outcome == "ok") & (rng.random(len(frame)) >= self.unscored)
        scores = pd.DataFrame(
            {
                "request_id": frame.request_id,
                "scorer": "correct",
                "version": "1",
                "status": np.where(scored, "scored", "unscored"),
                "value": np.where(scored, right.astype(float), np.nan),
            }
        )
        return (
            REQUESTS.to_pandas(REQUESTS.conform(frame)),
            SCORES.to_pandas(SCORES.conform(scores)),
        )

    def _step(self, number: int, step: Step, rng: np.random.Generator) -> pd.DataFrame:
        n = rng.poisson(step.rate * self.step_s)
        due = np.sort(rng.uniform(0, self.step_s, n)) + number * self.step_s
        # With probability icc a request is as late as its half second is.
        moment = (due / 0.5).astype(int)
        shared = rng.random(moment.max() + 1)[moment] < step.late
        late = np.where(rng.random(n) < self.icc, shared, rng.random(n) < step.late)
        prompt = rng.integers(0, PROMPTS, n)
        # Half of what is wrong is wrong for the prompt, whenever it is asked.
        hard = substream(0, "hard").random(PROMPTS)[prompt] < step.wrong
        wrong = np.where(rng.random(n) < 0.5, hard, rng.random(n) < step.wrong)
        ok = rng.random(n) >= step.failed
        ttft = np.where(late, 1.5, 0.1)
        return pd.DataFrame(
            {
                "due_s": due,
                "sent_s": due,
                "first_token_s": np.where(ok, due + ttft, np.nan),
                "end_s": due + ttft + 0.2,
                "ttft_due_s": np.where(ok, ttft, np.nan),
                "e2e_due_s": ttft + 0.2,
                "phase": "climb",
                "role": "traffic",
                "tenant": "acme",
                "prompt_id": [f"p{code}" for code in prompt],
                "family": "qa",
                "step": number + 1,
                "outcome": np.where(ok, "ok", "error"),
                "error_type": np.where(ok, None, "http_503"),
                "right": ~wrong,
            }
        )

    def frames(self, seed: int = 0, **changes: Any) -> Frames:
        """``changes`` replace keys of the scenario."""
        requests, scores = self.tables(seed)
        return build_frames(requests, scores, None, self.scenario(**changes))
