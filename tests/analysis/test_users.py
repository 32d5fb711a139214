"""What users do is not laid at the target's door: those who hang up, and turns not sent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.checks.base import failed_share, latency_s, truncation
from clustereval.analysis.slices import NOT_APPLICABLE, Frames, build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Outcome, Status
from clustereval.core.seeds import substream
from clustereval.core.sessions import TURN_FAILED
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import Effects, scenario


def hasty(share: float, rows: int = 3000, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A healthy run of which a share was to hang up: those with a longer answer than they waited
    for have broken it off. Requests, and scores as scoring gives them."""
    requests, scores, _ = synthetic_tables(Effects(flip=0.005), rows=rows, seed=seed)
    rng = substream(seed, "hasty")
    planned = (rng.random(rows) < share) & (requests.role == "traffic").to_numpy()
    waits_s = rng.uniform(0, 0.3, rows)
    cut = planned & (requests.end_s - requests.first_token_s > waits_s).to_numpy()
    requests["cancel_after_s"] = pd.array(np.where(planned, waits_s, np.nan), dtype="Float64")
    requests["cancelled"] = pd.array(cut, dtype="boolean")
    requests.loc[cut, "finish_reason"] = None
    requests.loc[planned, ["e2e_due_s", "e2e_sent_s"]] = pd.NA
    return requests, scores[~scores.request_id.isin(requests.request_id[planned])]


def frames_of(requests: pd.DataFrame, scores: pd.DataFrame) -> Frames:
    return build_frames(requests, scores, None, scenario(), level="probe")


def test_clients_that_hang_up_fail_nothing() -> None:
    """They count for TTFT and among the requests that did not fail; not for E2E, nor truncation,
    nor scores, nor as scores that are missing."""
    requests, scores = hasty(0.3)
    frames = frames_of(requests, scores)
    planned = requests.cancel_after_s.notna().to_numpy()
    assert planned.sum() > 400
    assert not np.isnan(latency_s(frames, "ttft_due_s")[planned]).any()
    assert np.isnan(latency_s(frames, "e2e_due_s")[planned]).all()
    assert not failed_share(frames)[planned].any()
    assert (truncation(frames).status[planned] == NOT_APPLICABLE).all()
    assert not any(rubric.attempted[planned].any() for rubric in frames.rubrics.values())
    assert frames.counts["cancelled"] == requests.cancelled.sum() > 200
    assert frames.counts["ok"] == len(requests)
    assert frames.counts["scores_unscored"] == 0


def test_a_time_out_of_a_client_that_was_to_hang_up_is_a_failure_without_an_e2e() -> None:
    """Its good ones have no E2E, so it must not stand for them; its TTFT took as long as it did."""
    requests, scores = hasty(0.3)
    late = requests.index[requests.cancel_after_s.notna()][0]
    requests.loc[late, "outcome"], requests.loc[late, "first_token_s"] = "timeout", pd.NA
    frames = frames_of(requests, scores)
    assert np.isnan(latency_s(frames, "e2e_due_s")[late])
    assert latency_s(frames, "ttft_due_s")[late] > 0
    assert failed_share(frames)[late] == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_fleet_passes_whoever_hangs_up(seed: int) -> None:
    """A third of the clients breaks off, and no gate fails for it."""
    findings = analyse_frames(frames_of(*hasty(0.33, seed=seed)))
    assert [f.sentence for f in findings.findings if f.gate and f.status is Status.FAIL] == []
    assert findings.verdict.outcome in (Outcome.PASS, Outcome.INCONCLUSIVE)


def test_e2e_is_not_made_fast_by_those_who_hang_up_on_slow_answers() -> None:
    """Leaving out the cut ones alone would: the fast ones among the hasty would stay."""
    requests, scores = hasty(0.8, rows=12_000)
    frames = frames_of(requests, scores)
    calm, _, _ = synthetic_tables(Effects(flip=0.005), rows=12_000)
    traffic = (calm.role == "traffic").to_numpy()
    true = calm.e2e_due_s[traffic].astype(float).median()
    kept = np.nanmedian(latency_s(frames, "e2e_due_s")[traffic])
    uncut = calm.e2e_due_s[traffic & ~requests.cancelled.to_numpy(bool)].astype(float).median()
    assert kept == pytest.approx(true, rel=0.04)  # 1600 rows: standard error about 1%
    assert uncut < 0.95 * true


def test_turns_that_were_not_sent_after_a_failure_are_the_target_s() -> None:
    """They count as failures under load, and not as dropped by the load generator."""
    requests, scores, _ = synthetic_tables(rows=3000)
    lost = requests.index[requests.role == "traffic"][::20]
    requests.loc[lost, ["outcome", "error_type"]] = ["dropped", TURN_FAILED]
    requests.loc[lost, ["sent_s", "first_token_s", "end_s", "late_s"]] = pd.NA
    findings = analyse_frames(frames_of(requests, scores[~scores.request_id.isin(
        requests.request_id[lost]
    )]))  # fmt: skip
    [ours] = [f for f in findings.of("run_health") if f.metric == "dropped"]
    [theirs] = [f for f in findings.of("fidelity") if f.metric == "failed"]
    assert ours.estimate == 0
    assert theirs.estimate == pytest.approx(0.05)
    assert theirs.status is Status.FAIL
