"""Errors a user can cause, and the exit codes a caller can rely on.

::

    ClusterEvalError            exit 2   says what was found, expected, and what to change
    ├── ScenarioError           exit 2   a scenario file or a ``--set`` that cannot be used
    ├── PromptFileError         exit 2   a prompt file, with its line
    ├── TraceFileError          exit 2   a trace of real traffic, with its line
    ├── RunFolderError          exit 2   a run folder that exists, is missing or is damaged
    ├── TargetError             exit 4   nothing to test: unreachable, unauthorised, wrong model
    │   └── UrlError            exit 2   a URL that nobody could be asked by
    ├── LocalAppError           exit 4   an app started for ``--app`` did not come up
    ├── InvalidRunError         exit 4   traffic was sent, but what came back cannot be judged
    └── InterruptedRunError     exit 130 interrupted once the traffic was over, before its verdict

The command line prints the message and nothing else; everything outside this tree is a bug and
keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process says to a CI job. Documented in ``reports/README.md``."""

    PASS = 0
    FAIL = 1
    BAD_INPUT = 2
    INCONCLUSIVE = 3
    NO_VALID_RUN = 4
    SOFTWARE = 70
    """A bug of ours (EX_SOFTWARE of sysexits.h): Python's own 1 would read as a failed verdict."""
    INTERRUPTED = 130


class ClusterEvalError(Exception):
    """Base of every error that a user can cause.

    Args:
        found: what is wrong, with the file, line, key or URL where it was found.
        expected: what would have been right.
        change: what to do about it.
    """

    exit_code: ExitCode = ExitCode.BAD_INPUT

    def __init__(self, found: str, *, expected: str | None = None, change: str | None = None):
        self.found = found
        self.expected = expected
        self.change = change
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.change:
            lines.append(f"change:   {self.change}")
        return "\n".join(lines)


class ScenarioError(ClusterEvalError):
    """A scenario file, or an override of one, that cannot be used."""


class PromptFileError(ClusterEvalError):
    """A prompt file that is missing or malformed; names the file and the line."""


class TraceFileError(ClusterEvalError):
    """A trace of real traffic that cannot be read; names the file and the line."""


class RunFolderError(ClusterEvalError):
    """A run folder that exists already, is missing, or is damaged."""


class TargetError(ClusterEvalError):
    """The target cannot be tested at all."""

    exit_code = ExitCode.NO_VALID_RUN


class UrlError(TargetError):
    """A URL that is none, or one that must not be written down: nobody was asked anything."""

    exit_code = ExitCode.BAD_INPUT


class LocalAppError(ClusterEvalError):
    """The app that was to be started on this machine did not come up."""

    exit_code = ExitCode.NO_VALID_RUN


class InvalidRunError(ClusterEvalError):
    """Traffic was sent, but the run measured something other than the target."""

    exit_code = ExitCode.NO_VALID_RUN


class InterruptedRunError(ClusterEvalError):
    """Interrupted after something had arrived, and before it was judged."""

    exit_code = ExitCode.INTERRUPTED
