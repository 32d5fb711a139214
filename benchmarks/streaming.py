"""How often a service that streams honestly is called batched, and a batcher is recognised.

``python -m benchmarks.streaming [RUNS]`` prints both with Wilson intervals; each run has 120
simulated answers, and seeds are 0, 1, 2, …
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np

from clustereval.analysis.intervals import wilson
from clustereval.analysis.streams import Batcher, recognise
from tests.support import token_streams as sim

ITL_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08)
HELD_ITL_S = (0.002, 0.005, 0.01, 0.015, 0.02)


def honest() -> Mapping[str, tuple[sim.Make, sim.Send]]:
    """Services that send tokens as they make them, by name."""
    found: dict[str, tuple[sim.Make, sim.Send]] = {}
    for itl_s in ITL_S:
        for jitter in (0.02, 0.2, 0.5):
            name = f"{1000 * itl_s:g} ms a token, jitter {jitter:g}"
            found[name] = (sim.one_by_one(itl_s, jitter), sim.at_once)
        for every_s, length_s in ((0.5, 0.05), (0.1, 0.05), (0.05, 0.1)):
            name = f"{1000 * itl_s:g} ms a token, stalls of {1000 * length_s:g} ms"
            name += f" every {1000 * every_s:g} ms"
            found[name] = (sim.one_by_one(itl_s, 0.2), sim.stalling(every_s, length_s))
        name = f"{1000 * itl_s:g} ms a token, answers of 4 to 20"
        found[name] = (sim.one_by_one(itl_s, 0.3, (4, 21)), sim.at_once)
    # As seen of vLLM on two cores that carried ten times their load.
    for every_s, length_s in ((0.03, 0.04), (0.03, 0.08), (0.06, 0.08)):
        name = f"4 ms a token, answers of 8 to 16, starved {1000 * length_s:g} ms"
        name += f" every {1000 * every_s:g} ms"
        found[name] = (sim.one_by_one(0.004, 0.3, (8, 17)), sim.stalling(every_s, length_s))
    for by_s in (0.01, 0.03):
        name = f"10 ms a token, writes {1000 * by_s:g} ms late"
        found[name] = (sim.one_by_one(0.01, 0.3), sim.delayed(sim.at_once, by_s))
        name = f"1 to 5 tokens a step of 50 ms, writes {1000 * by_s:g} ms late"
        found[name] = (sim.speculative(0.05, 0.1), sim.delayed(sim.at_once, by_s))
    for step_s in (0.01, 0.025, 0.05):
        for jitter in (0.02, 0.2):
            name = f"1 to 5 tokens a step of {1000 * step_s:g} ms, jitter {jitter:g}"
            found[name] = (sim.speculative(step_s, jitter), sim.at_once)
    return found


def batched() -> Mapping[str, tuple[sim.Make, sim.Send]]:
    """Services that hold tokens back, by name."""
    found: dict[str, tuple[sim.Make, sim.Send]] = {}
    for itl_s in HELD_ITL_S:
        for interval_s, overhead_s in ((0.05, 0.001), (0.05, 0.01), (0.1, 0.002)):
            name = f"{1000 * interval_s:g} ms batcher (± {1000 * overhead_s:g}) over"
            found[f"{name} {1000 * itl_s:g} ms a token"] = (
                sim.one_by_one(itl_s, 0.2), sim.batcher(interval_s, overhead_s)
            )  # fmt: skip
        name = f"50 ms batcher over {1000 * itl_s:g} ms a token, answers of 4 to 20"
        found[name] = (sim.one_by_one(itl_s, 0.3, (4, 21)), sim.batcher(0.05))
    found["a proxy that buffers whole answers"] = (sim.one_by_one(0.01, 0.2), sim.buffered)
    return found


def starved() -> Mapping[str, tuple[sim.Make, sim.Send]]:
    """A 50 ms batcher over a path that delays each write by so much in the mean."""
    return {
        f"50 ms batcher over {1000 * itl_s:g} ms a token, writes {1000 * by_s:g} ms late": (
            sim.one_by_one(itl_s, 0.3), sim.delayed(sim.batcher(0.05), by_s)
        )
        for itl_s in (0.005, 0.01)
        for by_s in (0.005, 0.01, 0.02)
    }  # fmt: skip


def seen(service: tuple[sim.Make, sim.Send], seed: int) -> Batcher | None:
    """What a run of 120 answers shows."""
    told = sim.answers(*service, np.random.default_rng(seed))
    return recognise(told.streams, told.ttft_s, np.ones(len(told.ttft_s), dtype=bool))


def table(services: Mapping[str, tuple[sim.Make, sim.Send]], runs: int) -> tuple[int, int]:
    """Prints a line per service; returns how many of how many runs were called batched."""
    hits = 0
    for name, service in services.items():
        found = [batcher for seed in range(runs) if (batcher := seen(service, seed))]
        hits += len(found)
        beats = [1000 * b.interval_s for b in found if b.interval_s is not None]
        about = f"about {np.median(beats):.0f} ms" if beats else ""
        print(f"  {name:<60} {len(found):>4} of {runs}  {about}")
    return hits, runs * len(services)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=50)
    runs = parser.parse_args().runs
    tables = {
        "honest, called batched": honest(),
        "batched, recognised": batched(),
        "batched on a starved machine, recognised": starved(),
    }
    for words, services in tables.items():
        hits, total = table(services, runs)
        low, high = wilson(hits / total, total, 0.025)
        print(f"{words}: {hits} of {total}, {hits / total:.1%} ({low:.1%} to {high:.1%})\n")


if __name__ == "__main__":
    main()
