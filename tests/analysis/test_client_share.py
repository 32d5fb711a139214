"""How much of a latency is the load generator's own, and what to do about it."""

from __future__ import annotations

import numpy as np
import pytest

from clustereval.analysis.checks.run_health import RunHealthCheck
from clustereval.analysis.client_share import client_share, remedy
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import build_frames
from clustereval.core.checks import RunHealth
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import scenario


def test_the_share_is_that_of_the_quantile() -> None:
    """A client that is late for one request in ten makes most of p99, and none of the median."""
    latency = np.array([0.1] * 90 + [0.5] * 10)
    delay = np.array([0.001] * 90 + [0.4] * 10)
    share = client_share(latency, delay)
    assert share is not None
    assert (share.quantile, share.measured_s, share.n) == (0.99, 0.5, 100)
    assert share.ratio == pytest.approx(0.8)


def test_a_target_that_is_slow_itself_is_not_the_clients_doing() -> None:
    """A long tail with a client that is on time has no share of it."""
    share = client_share(np.array([0.1] * 90 + [5.0] * 10), np.full(100, 0.001))
    assert share is not None
    assert share.ratio == pytest.approx(0.01)


def test_nothing_known_is_no_share() -> None:
    """Rows without a latency or without a delay say nothing."""
    assert client_share(np.array([np.nan, 0.1]), np.array([0.1, np.nan])) is None
    assert client_share(np.array([]), np.array([])) is None


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"cpu_ratio": 0.6, "cpu_ratio_highest_s": 0.97}, "more processes (--processes)"),
        ({"cpu_ratio": 0.99, "machine_cpu_ratio_highest_s": 0.98}, "from another machine"),
        ({"cpu_ratio": 0.3, "machine_cpu_ratio": 0.4}, "lower the rate"),
        ({"cpu_ratio": 0.99, "machine_cpu_ratio": 0.6, "cores": 2}, "no core left"),
        ({"cpu_ratio": 0.99, "machine_cpu_ratio": 0.4, "cores": 2}, "--processes"),
        (
            {
                "cpu_ratio": 0.99,
                "workers": [
                    {"cpu_ratio": 0.2, "machine_cpu_ratio": 0.2, "cores": 8},
                    {"cpu_ratio": 0.99, "machine_cpu_ratio": 0.8, "cores": 4},
                ],
            },
            "no core left",
        ),
        ({}, "lower the rate"),
        ({"cpu_ratio": None, "machine_cpu_ratio": "high"}, "lower the rate"),
    ],
)
def test_the_remedy_is_what_was_short(load: dict[str, object], words: str) -> None:
    """A full core asks for processes, a full machine for another one, else the rate is to blame."""
    assert words in remedy(load)


def judged(delay_s: float | None, **load: object) -> dict[str, Draft]:
    """run_health's drafts by metric, for a client that adds ``delay_s`` to each request."""
    load = {"cpu_ratio_highest_s": 0.99, **load}
    requests, scores, cluster = synthetic_tables(rows=400)
    requests["client_delay_s"] = delay_s
    for column in ("ttft_due_s", "e2e_due_s"):
        requests[column] += delay_s or 0.0
    frames = build_frames(requests, scores, cluster, scenario(), level="probe", load=load)
    drafts = RunHealthCheck().evaluate(frames, RunHealth())
    assert isinstance(drafts, list)
    return {draft.finding.metric: draft for draft in drafts}


def test_a_run_that_measured_its_own_client_is_refused() -> None:
    """Beyond its share of TTFT the finding exceeds its margin, and names more processes."""
    draft = judged(5.0)["client_ratio.ttft"]
    assert draft.finding.estimate is not None
    assert draft.finding.estimate > draft.finding.margin == RunHealth().client_ratio
    assert "own part of the" in draft.say(draft.finding)
    assert "--processes" in draft.remedy(draft.finding)


def test_a_client_that_adds_little_is_fine() -> None:
    """A tenth of a millisecond is far below the share that is allowed, in TTFT and in E2E."""
    drafts = judged(0.0001)
    for metric in ("client_ratio.ttft", "client_ratio.e2e"):
        estimate = drafts[metric].finding.estimate
        assert estimate is not None
        assert 0 <= estimate < 0.05


def test_milliseconds_refuse_nothing() -> None:
    """Half of a very short TTFT is less than any SLO says: the part that is allowed is larger."""
    assert client_share(np.full(9, 0.008), np.full(9, 0.004)) is not None
    requests, scores, cluster = synthetic_tables(rows=400)
    requests["client_delay_s"], requests["ttft_due_s"] = 0.004, 0.008
    frames = build_frames(requests, scores, cluster, scenario(), level="probe")
    drafts = RunHealthCheck().evaluate(frames, RunHealth())
    assert isinstance(drafts, list)
    [found] = [draft.finding for draft in drafts if draft.finding.metric == "client_ratio.ttft"]
    assert found.estimate == pytest.approx(0.5)
    assert found.margin == 1.0


def test_a_run_that_did_not_record_it_is_judged_without() -> None:
    """Runs of before, and simulated ones, have no such column: no finding, and no failure."""
    assert not [metric for metric in judged(None) if metric.startswith("client_ratio")]


def test_a_clock_that_may_be_far_off_is_lateness_that_nobody_saw() -> None:
    """Workers' clocks are held against the lateness that is allowed; one clock is not mentioned."""
    far = judged(None, clock_error_s=0.3)["clock_s.max"]
    assert far.finding.low is not None
    assert far.finding.low >= far.finding.margin == RunHealth().late_p99_s
    assert "NTP" in far.remedy(far.finding)
    near = judged(None, clock_error_s=0.0004)["clock_s.max"].finding
    assert near.high is not None
    assert near.high < near.margin
    assert "clock_s.max" not in judged(None, clock_error_s=0.0)
    assert "clock_s.max" not in judged(None)


def test_lost_processes_are_named_where_arrivals_were_dropped() -> None:
    """The remedy is not a lower rate where a process died."""
    workers = [{"number": 0, "lost_s": None}, {"number": 1, "host": "node-7", "lost_s": 12.3}]
    lost, none = judged(None, workers=workers)["dropped"], judged(None)["dropped"]
    assert "1 on node-7 after 12 s" in lost.remedy(lost.finding)
    assert "lower the rate" in none.remedy(none.finding)
