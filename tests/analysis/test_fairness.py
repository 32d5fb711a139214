"""Tenant fairness: a tenant that asks for other things is no tenant that is treated worse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis import latency
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.slices import Floats, build_frames
from clustereval.analysis.verdict import analyse_frames
from clustereval.core.findings import Finding, Findings, Status
from tests.analysis.frames import synthetic_tables
from tests.support.synthetic import scenario

NO_SLO = [{"name": "acme", "share": 0.85}, {"name": "beta", "share": 0.15}]


def judged(
    requests: pd.DataFrame, scores: pd.DataFrame, tenants: list[dict[str, object]] | None = None
) -> Findings:
    changes = {} if tenants is None else {"tenants": tenants}
    frames = build_frames(requests, scores, None, scenario(**changes), level="probe")
    return analyse_frames(frames)


def own_prompts(slow: float = 4.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Beta asks only for the last fifth of the prompts, which take longer and go wrong more."""
    requests, scores, _ = synthetic_tables(rows=6000)
    hard = requests["prompt_id"] >= "p0192"
    requests["tenant"] = np.where(hard, "beta", "acme")
    requests.loc[hard, "e2e_due_s"] *= slow
    spoiled = requests[hard & (requests.index % 3 == 0)]["request_id"]
    wrong = scores["request_id"].isin(spoiled) & (scores["scorer"] == "correct")
    scores.loc[wrong, "value"] = 0.0
    return requests, scores


def of_beta(findings: Findings) -> list[Finding]:
    return [f for f in findings.of("tenant_fairness") if f.slice.get("tenant") == "beta"]


def test_tenant_with_prompts_of_its_own_is_judged_by_its_slo() -> None:
    """Longer and harder prompts are not the fleet's unfairness: the comparison does not gate."""
    found = of_beta(judged(*own_prompts()))
    against = [f for f in found if not f.metric.startswith("slo.")]
    assert against
    assert not any(f.gate for f in against)
    assert [f.metric for f in found if f.gate] == ["slo.ttft_due_s.p95"]


def test_tenant_with_prompts_of_its_own_and_no_slo_is_undecided() -> None:
    """Nothing can be said of such a tenant, so the check is inconclusive and never a pass."""
    findings = judged(*own_prompts(), NO_SLO)
    [check] = [c for c in findings.checks if c.check == "tenant_fairness"]
    assert check.status is Status.INCONCLUSIVE
    [gate] = [f for f in of_beta(findings) if f.gate]
    assert gate.estimate is None
    assert "give it an slo" in gate.remedy


def test_longer_prompts_of_one_tenant_do_not_gate_latency() -> None:
    """The same prompts in another mix of lengths: scores are paired, latency is not compared."""
    requests, scores, _ = synthetic_tables(rows=6000)
    long = requests["prompt_id"] >= "p0120"
    requests.loc[long, "prompt_tokens"] = 6000
    requests.loc[long, "e2e_due_s"] *= 4
    chance = np.random.default_rng(0).random(len(requests))
    requests["tenant"] = np.where(chance < np.where(long, 0.3, 0.03), "beta", "acme")
    gates = {f.metric for f in of_beta(judged(requests, scores)) if f.gate}
    assert "correct" in gates
    assert not any(name.startswith("e2e") for name in gates)


@pytest.mark.parametrize("slow", [1.0, 4.0])
def test_same_mix_of_prompts_gates(slow: float) -> None:
    """Where both ask for the same things, the slower tenant fails and an equal one does not."""
    requests, scores, _ = synthetic_tables(rows=6000)
    requests.loc[requests["tenant"] == "beta", "e2e_due_s"] *= slow
    [ratio] = [f for f in of_beta(judged(requests, scores)) if f.metric == "e2e_due_s.p99"]
    assert ratio.gate
    assert (ratio.status is Status.FAIL) == (slow > 1)


RUNS = 80


def bursty(seed: int, slower: Callable[[Floats], Floats] = lambda times: times) -> Estimate:
    """Two tenants in 20 load windows, of which some are several times slower than the others."""
    rng = np.random.default_rng(seed)
    requests, scores, _ = synthetic_tables(rows=960, seed=seed)
    window = np.repeat(np.arange(20), 48)
    requests["due_s"] = window * scenario().buckets.traffic.window_s + 1.0
    requests["role"] = "traffic"
    load = np.where(rng.random(20) < 0.3, 2.0, 0.0) + rng.normal(0, 0.2, 20)
    beta = rng.random(len(requests)) < 0.2
    requests["tenant"] = np.where(beta, "beta", "acme")
    times = np.exp(load[window] + rng.normal(0, 0.5, len(window)))
    requests["e2e_due_s"] = np.where(beta, slower(times), times)
    frames = build_frames(requests, scores, None, scenario())
    sides = frames.where(tenant="beta"), frames.where(tenant="acme")
    return latency.quantile_ratio_together(
        frames, frames.numbers("e2e_due_s"), *sides, 0.8, by="tenant"
    )


def truth(seed: int, slower: Callable[[Floats], Floats]) -> float:
    """The ratio in the load that the run of this seed met, without its noise."""
    rng = np.random.default_rng(seed)
    load = np.where(rng.random(20) < 0.3, 2.0, 0.0) + rng.normal(0, 0.2, 20)
    times = np.exp(np.repeat(load, 2400) + rng.normal(0, 0.5, 48_000))
    return float(np.quantile(slower(times), 0.8) / np.quantile(times, 0.8))


@pytest.mark.simulation
@pytest.mark.parametrize(
    "slower",
    [
        lambda times: times,
        lambda times: 4 * times,
        lambda times: times + 4,
        lambda times: 0 * times + 4,
    ],
    ids=["equal", "factor", "constant more", "constant"],
)
def test_bounds_of_a_ratio_cover_it_in_bursts(slower: Callable[[Floats], Floats]) -> None:
    """Each bound misses the ratio in the run's load in at most 2.5% of runs, to the simulation's
    error, whether the tenants differ by a factor or otherwise."""
    missed = {"low": 0, "high": 0}
    for seed in range(RUNS):
        low, high = bursty(seed, slower).bounds(0.025)
        true = truth(seed, slower)
        missed["low"] += low is not None and low > true
        missed["high"] += high is not None and high < true
    limit = 0.025 * RUNS + 3 * (0.025 * 0.975 * RUNS) ** 0.5
    assert max(missed.values()) <= limit, missed


def test_bursts_that_both_tenants_meet_do_not_blur_their_ratio() -> None:
    """A tenant four times slower is told from one that is twice as slow in most runs."""
    lows = [bursty(seed, lambda times: 4 * times).bounds(0.025)[0] for seed in range(RUNS // 2)]
    assert np.mean([low is not None and low > 2 for low in lows]) > 0.6


def test_what_moves_both_tenants_alike_is_no_variance_of_rows() -> None:
    """Where half of the windows are slow for both tenants, few rows differ from the others of their
    window, though half of all rows lie above the median."""
    rng = np.random.default_rng(5)
    requests, scores, _ = synthetic_tables(rows=960)
    window = np.repeat(np.arange(20), 48)
    requests["due_s"] = window * scenario().buckets.traffic.window_s + 1.0
    requests["role"] = "traffic"
    requests["tenant"] = np.where(rng.random(len(requests)) < 0.3, "beta", "acme")

    def known(slow: Floats) -> float:
        """Variance by prompt, in multiples of that of independent rows."""
        requests["e2e_due_s"] = np.exp(3 * slow + rng.normal(0, 0.1, len(window)))
        frames = build_frames(requests, scores, None, scenario())
        masks = frames.where(tenant="beta"), frames.where(tenant="acme")
        sides = latency._sides(frames, frames.numbers("e2e_due_s"), *masks, 0.5)
        assert sides is not None
        mine, theirs = sides[0].clustered(frames, 1), sides[1].clustered(frames, -1)
        (variance, _), _ = latency._within_windows(mine, theirs, sides)
        return variance / (0.25 * sum(1 / len(side.rows) for side in sides))

    assert known((window % 2).astype(float)) < 0.4
    assert known((rng.random(len(window)) < 0.5).astype(float)) > 0.8


@pytest.mark.parametrize("seed", range(20))
def test_bounds_of_a_ratio_move_outwards_with_the_tail(seed: int) -> None:
    """Also where the common size has no bound any more and those of the sides apart are given."""
    rng = np.random.default_rng(seed)
    requests, scores, _ = synthetic_tables(rows=280)
    requests["due_s"] = (np.arange(280) * 12 // 280) * scenario().buckets.traffic.window_s + 1.0
    requests["role"] = "traffic"
    requests["tenant"] = np.where(rng.random(280) < 0.5, "beta", "acme")
    requests["e2e_due_s"] = rng.lognormal(0, 0.6, 280)
    frames = build_frames(requests, scores, None, scenario())
    sides = frames.where(tenant="beta"), frames.where(tenant="acme")
    times = frames.numbers("e2e_due_s")
    ratio = latency.quantile_ratio_together(frames, times, *sides, 0.95, by="tenant")
    assert ratio.bounds is not None
    given = [ratio.bounds(tail) for tail in (0.3, 0.1, 0.06, 0.045, 0.025, 0.01, 0.001, 1e-5)]
    assert ratio.value is not None
    for side, sign in ((0, 1), (1, -1)):
        at = [sign * bound for pair in given if (bound := pair[side]) is not None]
        assert at == sorted(at, reverse=True)
        assert not at or at[0] <= sign * ratio.value + 1e-9
