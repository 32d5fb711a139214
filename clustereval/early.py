"""Ends a run's load as soon as a look decides.

The looks themselves are made by a process of their own (:mod:`.looks`), for an analysis in this one
would take time from the load generator.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import ValidationError

from clustereval.core.errors import RunFolderError
from clustereval.core.looks import STOPPED_EARLY, LookMade, Looks
from clustereval.rundir import RAW_LOOKS, Run, read_json_lines

RAW_LOOKS_LOG: Final = "raw/looks.log"
_GRACE_S: Final = 5.0


class Looker:
    """The process that looks, as its parent sees it.

    Attributes:
        decided: whether a look that the parent has heard of ends the run.
    """

    def __init__(self, run: Run, looks: Looks, process: subprocess.Popen[bytes]):
        self._run = run
        self._looks = looks
        self._process = process
        self._heard = 0
        self._broken = False
        self.decided = False

    def news(self) -> list[str]:
        """What has become of the looks since the last call, a sentence each."""
        made = read_looks(self._run)
        said = [told(look, self._looks) for look in made[self._heard :]]
        self._heard = len(made)
        self.decided = any(look.ends for look in made)
        if not self._broken and self._process.poll() not in (None, 0):
            self._broken = True
            log = self._run.path(RAW_LOOKS_LOG)
            said.append(f"no more looks, so the run goes on to its planned end: see {log}")
        return said


@contextmanager
def looking(run: Run) -> Iterator[Looker | None]:
    """Looks at ``run`` while it lasts; gives None where its manifest plans no looks."""
    looks = run.manifest.looks
    if looks is None:
        yield None
        return
    # One thread for each library: a look must not take every core, not even for a moment.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with run.path(RAW_LOOKS_LOG).open("ab") as log:
        # In a session of its own: Ctrl-C is the parent's to hear, and priorities are by session.
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "clustereval.looks"),
                *(str(run.folder.resolve()), str(os.getpid())),
            ],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Looker(run, looks, process)
    finally:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_looks(run: Run) -> list[LookMade]:
    """The looks that were made, in order.

    Raises:
        RunFolderError: the file is damaged.
    """
    try:
        return [LookMade.model_validate(line) for line in read_json_lines(run.path(RAW_LOOKS))]
    except ValidationError as error:
        raise RunFolderError(f"{run.path(RAW_LOOKS)}: damaged: {error}") from None


def adopt_looks(run: Run, state: str) -> Looks | None:
    """The run's looks, with what became of them in a run that ended in ``state``."""
    looks, made = run.manifest.looks, read_looks(run)
    if looks is None or not made:
        return looks
    ending = [look.number for look in made if look.ends] if state == STOPPED_EARLY else []
    return looks.model_copy(update={"made": made, "ended_by": ending[0] if ending else None})


def told(made: LookMade, looks: Looks) -> str:
    """A look in one line."""
    planned = looks.planned[made.number - 1]
    head = f"look {made.number} of {len(looks.planned)}, at {planned.share:.0%} of the plan"
    if made.ends:
        return f"{head}: decided"
    return f"{head}: {'skipped' if made.skipped else 'not decided'}: {', '.join(made.open)}"
