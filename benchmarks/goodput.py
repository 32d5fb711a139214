"""How sure the goodput and the highest rate are, near the end of what a queue carries.

``python -m benchmarks.goodput [RUNS]`` sends ladders of rates to a simulated queue, whose waits go
together over seconds as a cluster's do, and judges each run as any run is judged. It prints, with
seeds 0, 1, 2, …:

1. for each step its true shares (means over all runs), how often the 95% interval of the goodput
   held the true one, and how often the step was shown to hold, shown not to, or left undecided;
2. how often a run claimed a highest rate that truly does not hold (stated: 2.5%).
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.verdict import line
from clustereval.analysis.goodput import goodput
from clustereval.analysis.slices import build_frames
from clustereval.core.columns import REQUESTS, SCORES
from clustereval.core.goodput import Goodput
from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream

SERVERS = 8
SERVICE_S = 0.3
"""Eight servers of 0.3 s in the mean carry 26.7 requests a second."""
REST_S = 1.0
LIMIT_S = 1.2
PROMPTS, WRONG = 240, 0.03


def scenario(rates: Sequence[float], step_s: float) -> Scenario:
    """A stepped phase for one tenant with an E2E of :data:`LIMIT_S` at p95."""
    steps = {"process": "steps", "rates": list(rates), "rest_s": REST_S}
    return Scenario.model_validate(
        {
            "name": "queue",
            "prompt_sets": {"golden": "golden.jsonl"},
            "tenants": [{"name": "acme", "share": 1, "slo": {"e2e_s": LIMIT_S, "score": 0.85}}],
            "phases": [{"name": "climb", "duration_s": step_s * len(rates), "arrivals": steps}],
        }
    )


def tables(rates: Sequence[float], step_s: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(requests, scores) of one ladder at the queue, first come, first served."""
    rng = substream(seed, "queue")
    active = step_s - REST_S
    due, step = [], []
    for number, rate in enumerate(rates):
        times = np.sort(rng.uniform(0, active, rng.poisson(rate * active)))
        due.append(times + number * step_s)
        step.append(np.full(len(times), number + 1))
    at, service = np.concatenate(due), rng.lognormal(-0.125, 0.5, sum(map(len, due))) * SERVICE_S
    free, begin = [0.0] * SERVERS, np.empty(len(at))
    for index, time in enumerate(at):
        begin[index] = max(time, heapq.heappop(free))
        heapq.heappush(free, begin[index] + service[index])
    prompt = rng.integers(0, PROMPTS, len(at))
    ids = [f"q-{index}" for index in range(len(at))]
    frame = pd.DataFrame(
        {
            "request_id": ids, "due_s": at, "sent_s": at, "first_token_s": begin + 0.05,
            "end_s": begin + service, "ttft_due_s": begin + 0.05 - at,
            "e2e_due_s": begin + service - at, "phase": "climb", "role": "traffic",
            "tenant": "acme", "prompt_id": [f"p{code}" for code in prompt], "family": "qa",
            "step": np.concatenate(step), "outcome": "ok",
        }
    )  # fmt: skip
    # What is wrong is wrong for the prompt; each run draws prompts anew.
    right = rng.random(PROMPTS)[prompt] >= WRONG
    scores = pd.DataFrame(
        {
            "request_id": ids, "scorer": "correct", "version": "1", "status": "scored",
            "value": right.astype(float),
        }
    )  # fmt: skip
    return REQUESTS.to_pandas(REQUESTS.conform(frame)), SCORES.to_pandas(SCORES.conform(scores))


def run(rates: Sequence[float], step_s: float, seed: int) -> Goodput:
    """One ladder, judged."""
    requests, scores = tables(rates, step_s, seed)
    found = goodput(build_frames(requests, scores, None, scenario(rates, step_s)))
    assert found is not None  # it has loaded traffic
    return found


def ladder(rates: Sequence[float], step_s: float, runs: int) -> None:
    """Prints what became of ``runs`` ladders."""
    made = [run(rates, step_s, seed) for seed in range(runs)]
    said = ", ".join(f"{rate:g}" for rate in rates)
    print(f"\nsteps of {step_s:g} s at {said} requests/s, {runs} runs")
    print(f"{'':<90} holds, undecided, broken")
    late = []
    for index, rate in enumerate(rates):
        steps = [one.stretches[index] for one in made]
        missed = np.array([next(k.missed for k in s.kept if k.promise == "e2e_s") for s in steps])
        late.append(float(missed.mean()))
        share = np.mean([s.good_per_s / s.offered_per_s for s in steps])  # type: ignore[operator]
        hits = sum(
            s.low_per_s <= share * s.offered_per_s <= s.high_per_s  # type: ignore[operator]
            for s in steps
        )
        counts = [sum(s.status == name for s in steps) for name in ("holds", "undecided", "broken")]
        said = "  ".join(f"{100 * count / runs:7.1f}%" for count in counts)
        name = f"{rate:g}/s: late {late[-1]:.1%}, good {share:.1%}; covered"
        print(f"{line(name, hits, runs)}   {said}")
    first_bad = next((i for i, share in enumerate(late) if share >= 0.05), len(rates))
    wrong = sum((one.highest[0].step or 0) > first_bad for one in made)
    print(line(f"claimed a rate that does not hold (step {first_bad + 1} on)", wrong, runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("runs", type=int, nargs="?", default=400)
    runs = parser.parse_args().runs
    ladder((12, 16, 20, 22, 24, 26), 20.0, runs)
    ladder((12, 26), 20.0, runs)
    ladder((12, 16, 20, 22, 24, 26), 60.0, runs)
    ladder((12, 26), 60.0, runs)


if __name__ == "__main__":
    main()
