"""Looks at a run while its load goes on: ``python -m clustereval.looks RUN PARENT_PID``.

A process of its own, which stands back for the load generator, writes one line per look to
``raw/looks.jsonl`` and nothing else, and ends with its parent. Its parent is :mod:`.early`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from clustereval.analysis.sequential import undecided
from clustereval.analysis.slices import before, build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.looks import Look, LookMade
from clustereval.core.priority import stand_back
from clustereval.load.progress import RAW_START, read_start
from clustereval.observe.join import RawRun, join_rows
from clustereval.rundir import (
    RAW_CLUSTER,
    RAW_LOOKS,
    Manifest,
    Run,
    read_json_lines,
    response_files,
)
from clustereval.scoring.registry import load_scorers
from clustereval.scoring.score import score_requests
from clustereval.scoring.scorer import Scorer

_POLL_S: Final = 0.25


class Arrived:
    """A run's responses as they come; a line that is still being written waits."""

    def __init__(self, run: Run):
        self._run = run
        self._offsets: Counter[Path] = Counter()
        self.rows: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """The rows that came since the last call."""
        new = [row for path in response_files(self._run) for row in self._read(path)]
        self.rows += new
        return new

    def _read(self, path: Path) -> list[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(self._offsets[path])
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offsets[path] += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


class Watcher:
    """Makes the looks of one run, each as soon as every arrival that it rests on has ended.

    A look is skipped where the next one's arrivals have all ended as well, since the machine is
    then too slow for both, and where the load generator has been late: rather no look than a load
    that is not the planned one.
    """

    def __init__(self, run: Run):
        self._run = run
        self._manifest = run.manifest
        if self._manifest.looks is None:
            raise ValueError("the run has no looks")
        self._looks = self._manifest.looks
        plan = run.plan
        cuts = [look.until_s for look in self._looks.planned]
        first = np.searchsorted(cuts, plan["due_s"], side="right")
        self._due = dict(zip(plan["request_id"], plan["due_s"], strict=True))
        self._first = dict(zip(plan["request_id"], first.tolist(), strict=True))
        """The first look that needs an arrival, from 0; those that have ended are not in it."""
        self._missing = np.bincount(first, minlength=len(cuts) + 1)
        self._arrived = Arrived(run)
        self._late_s: list[float] = []
        self._scorers = load_scorers()
        self._next = 1

    @property
    def planned(self) -> Sequence[Look]:
        return self._looks.planned

    def poll(self) -> LookMade | None:
        """Makes the next look if it is due; None if it is not, or none is left."""
        for row in self._arrived.read():
            if (look := self._first.pop(row["request_id"], None)) is not None:
                self._missing[look] -= 1
            if row["sent_s"] is not None and row["request_id"] in self._due:
                due_s = row.get("due_s", self._due[row["request_id"]])  # a later turn's is its own
                self._late_s.append(row["sent_s"] - due_s)
        number = self._next
        if number > len(self._looks.planned) or not self._all_ended(number):
            return None
        self._next += 1
        late_s = float(np.quantile(self._late_s, 0.99)) if self._late_s else 0.0
        self._late_s.clear()
        if number < len(self._looks.planned) and self._all_ended(number + 1):
            return self._made(number, ["the look before it took too long"], skipped=True)
        if late_s > self._manifest.scenario.checks.run_health.late_p99_s / 2:
            return self._made(number, ["the load generator was late"], skipped=True)
        cpu_s = time.process_time()
        found = open_at(self._run, self._manifest, self._arrived.rows, number, self._scorers)
        return self._made(number, found, cpu_s=time.process_time() - cpu_s)

    def _all_ended(self, number: int) -> bool:
        return not self._missing[:number].any()

    def _made(
        self, number: int, found: list[str], *, cpu_s: float = 0.0, skipped: bool = False
    ) -> LookMade:
        t0 = read_start(self._run.path(RAW_START))
        at_s = 0.0 if t0 is None else time.time() - t0
        return LookMade(
            number=number, open=found, skipped=skipped, at_s=round(at_s, 3), cpu_s=round(cpu_s, 3)
        )


def open_at(
    run: Run,
    manifest: Manifest,
    responses: Sequence[dict[str, Any]],
    number: int,
    scorers: Sequence[Scorer],
) -> list[str]:
    """What a look finds undecided; it reads the run's folder and writes nothing.

    The analysis is that of a run which this look ended, on the same rows and at the same level.

    Args:
        manifest: with looks.
        responses: what has arrived; every arrival that was due before the look's time is among it.
        number: which of the planned looks, from 1.
    """
    assert manifest.looks is not None
    looks = manifest.looks.model_copy(update={"ended_by": number})
    scenario, plan = manifest.scenario, run.plan
    joined = join_rows(
        RawRun(
            plan=plan,
            responses=responses,
            samples=read_json_lines(run.path(RAW_CLUSTER)),
            t0_unix_s=read_start(run.path(RAW_START)),
            until_s=looks.until_s,
            several=len(response_files(run)) > 1,
        ),
        scenario,
    )
    judged: pd.DataFrame = before(joined.requests, "due_s", looks.until_s)
    level = joined.account["level"]
    frames = build_frames(
        joined.requests,
        score_requests(judged, run.prompts, scorers),
        joined.cluster,
        scenario,
        level=level,
        looks=looks,
    )
    found = undecided(analyse_frames(frames), looks, plan)
    if manifest.target.ray_dashboard is not None and level != "probe":
        found.append("which replica answered: known after the load only, without the probe")
    return found


def main() -> None:
    """Looks until no look is left, one has ended the run, or the parent is gone."""
    folder, parent = sys.argv[1], int(sys.argv[2])
    stand_back()
    run = Run.open(folder)
    watcher = Watcher(run)
    for _ in watcher.planned:
        while (made := watcher.poll()) is None:
            time.sleep(_POLL_S)
            if os.getppid() != parent:
                return
        with run.path(RAW_LOOKS).open("a", encoding="utf-8") as file:
            file.write(made.model_dump_json() + "\n")
        if made.ends:
            return


if __name__ == "__main__":
    main()
