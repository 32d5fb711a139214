"""The mock in a process of its own, and what it knows to be true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd

from clustereval.core.errors import InvalidRunError
from clustereval.load.mock.answers import Pace

_END_S = 10.0


class MockProcess:
    """A mock that runs while this is entered.

    Args:
        truth: file that it writes, whole once it has ended; null: none.

    Raises:
        InvalidRunError: it did not start.
    """

    def __init__(self, pace: Pace, truth: Path | None = None):
        self._truth = truth
        options = ["--tokens", str(pace.tokens), "--parent", str(os.getpid())]
        options += ["--ttft-s", str(pace.ttft_s), "--itl-s", str(pace.itl_s)]
        options += ["--truth", str(truth)] if truth is not None else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clustereval.load.mock", *options],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise InvalidRunError(f"the mock server ended with code {self._process.wait()}")
        self.port = int(json.loads(line)["port"])

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def end(self) -> pd.DataFrame:
        """Ends it; returns the truth, one row per answer."""
        self._process.terminate()
        self._process.wait(_END_S)
        return pd.DataFrame() if self._truth is None else read_truth(self._truth)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(_END_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


def read_truth(path: Path) -> pd.DataFrame:
    """One row per answer of a mock that has ended: the columns of ``TRUTH_COLUMNS``."""
    return pd.read_csv(path, dtype={"request_id": str})
