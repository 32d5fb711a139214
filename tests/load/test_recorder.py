"""The file of raw responses, the tally and the load generator's watch over itself."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.errors import InvalidRunError, RunFolderError
from clustereval.load.progress import Tally, read_progress
from clustereval.load.recorder import Recorder
from clustereval.load.rows import Arrival, dropped, make_row
from clustereval.load.self_watch import SelfWatch, Usage
from clustereval.rundir import read_json_lines

ARRIVAL = Arrival("r-1", "a" * 32, "b" * 16, 1.0, "p", "t", "q", None)


def row(**fields: Any) -> dict[str, Any]:
    return make_row(ARRIVAL, {"outcome": "ok", **fields})


def test_each_row_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    """Nothing waits in a buffer for a kill to take it; hostile text stays on one line."""
    recorder = Recorder(tmp_path / "raw" / "r.jsonl")
    for index in range(3):
        recorder.append(row(output_text=f"{index}\n\u2028\x00é"))
        rows = read_json_lines(tmp_path / "raw" / "r.jsonl")
        assert [line["output_text"] for line in rows][index] == f"{index}\n\u2028\x00é"
    recorder.close()


def test_a_run_is_not_replayed_twice(tmp_path: Path) -> None:
    """A file with responses is refused, and left as it was."""
    path = tmp_path / "r.jsonl"
    path.write_text("{}\n")
    with pytest.raises(RunFolderError, match="holds responses already"):
        Recorder(path)
    assert path.read_text() == "{}\n"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A write that the system cuts short is taken back, and told; room later takes the rest."""
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path)
    recorder.append(row(output_text="first"))
    limit = path.stat().st_size + 100  # room for a part of the next line
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(InvalidRunError, match="1 responses are on disk"):
            recorder.append(row(output_text="second" * 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes().endswith(b"\n")
    assert len(read_json_lines(path)) == 1
    recorder.append(row(output_text="third"))
    recorder.close()
    texts = [line["output_text"] for line in read_json_lines(path)]
    assert texts == ["first", "second" * 100, "third"]


def test_progress_counts_and_forgets(tmp_path: Path) -> None:
    """Outcomes add up; TTFT is from due, over the last ten seconds, null when nothing ended."""
    tally = Tally(planned=9, end_due_s=60)
    assert tally.progress(0, 0, None).ttft_p50_s is None
    tally.add(1.0, row(first_token_s=1.5, end_s=2.0))
    tally.add(1.0, dropped(ARRIVAL, "deadline", "late", 3.0, 0))
    now = tally.progress(5, 2, "burst")
    assert now.outcomes == {"ok": 1, "error": 0, "timeout": 0, "dropped": 1}
    assert now.ended == 2
    assert now.ttft_p50_s == pytest.approx(0.5, rel=0.01)
    assert tally.progress(12.5, 0, None).ttft_p99_s is None
    assert tally.counts()["error_types"] == {"deadline": 1}
    (tmp_path / "p.json").write_text(now.model_dump_json())
    assert read_progress(tmp_path / "p.json") == now
    assert read_progress(tmp_path / "none.json") is None


def test_the_self_account_states_lag_and_cpu() -> None:
    """A loop that wakes late and burns half a core says so, and its busiest second too."""
    times = iter([0.0, 0.06, 1.05, 2.11, 2.11])
    # Asked at the start, after each whole second, and at the end.
    used = iter([Usage(0.0, 5.0), Usage(0.9, 6.05), Usage(1.0, 8.17), Usage(1.0, 8.17)])
    watch = SelfWatch(lambda: next(used), lambda: next(times), cores=2)
    for asked_s in (0.05, 1.0, 2.1):
        watch.woke(asked_s)
    account = watch.account()
    assert account["loop_lag_s"]["max"] == pytest.approx(0.05)
    assert account["cpu_ratio"] == pytest.approx(1.0 / 2.11, abs=1e-3)
    assert account["cpu_ratio_highest_s"] == pytest.approx(0.9 / 1.05, abs=1e-3)
    assert account["machine_cpu_ratio"] == pytest.approx(3.17 / 2.11 / 2, abs=1e-3)
    assert account["machine_cpu_ratio_highest_s"] == pytest.approx(1.0, abs=1e-3)
    json.dumps(account)
