"""A later run against a baseline run, on the prompts and phases that both have."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from clustereval.analysis import latency, rates, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    draft,
    failed_share,
    latency_s,
    score_drafts,
)
from clustereval.analysis.checks.run_health import RunHealthCheck
from clustereval.analysis.conclusion import HEALTH, conclude
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.gates import Draft, decide
from clustereval.analysis.slices import (
    Frames,
    before,
    build_frames,
    judged_requests,
    judged_scores,
    load_frames,
)
from clustereval.core.checks import Checks
from clustereval.core.findings import Findings, Warning, WarningCode
from clustereval.rundir import Run

CHECK = "compare"
BASE, LATER = "baseline_run", "later_run"


def compare(baseline: Run, later: Run) -> Findings:
    """What got worse from ``baseline`` to ``later``, with the verdict logic of a single run.

    Scores are paired by prompt within the same phase, apart for the idle sweep and for traffic;
    prompts whose text or reference changed, and phases that only one run has, are left out.
    Latency is the ratio at ``traffic_drift.quantile`` over the traffic phases, failures the excess
    share over all. The later run's settings hold: ``rubrics`` and ``score_margin`` of
    ``traffic_drift``, ``latency_factor`` of ``tenant_fairness``, ``failure_margin`` of
    ``fidelity``. The health of both runs is checked as well. Neither run's folder is changed.

    Raises:
        RunFolderError: a table of one of the runs is missing or damaged.
    """
    own = {BASE: load_frames(baseline), LATER: load_frames(later)}
    changed = _changed_prompts(baseline, later)
    frames = _both(baseline, later, changed)
    settings = frames.scenario.checks
    warnings = _differences(baseline, later, changed)
    drafts = _drafts(frames, settings, warnings)
    unobserved = {}
    if all(made.finding.estimate is None for made in drafts):
        unobserved[CHECK] = "needs a phase of the same name, with the same prompts, in both runs"
        drafts = []
    for name, frames_of_run in own.items():
        made = RunHealthCheck().evaluate(frames_of_run, settings.run_health)
        if isinstance(made, NotObserved):
            unobserved[HEALTH] = f"{name}: {made.reason}"
        else:
            drafts += [_of_run(one, name) for one in made]
    counts = {f"baseline_{key}": value for key, value in own[BASE].counts.items()}
    return conclude(
        decide(drafts, settings.confidence),
        {CHECK: True, HEALTH: settings.run_health.required},
        unobserved,
        counts={**own[LATER].counts, **counts},
        context={
            "baseline": baseline.manifest.name,
            "later": later.manifest.name,
            "left_out_prompts": sorted(changed),
        },
        interrupted=any(frames_of_run.interrupted for frames_of_run in own.values()),
    )


def _both(baseline: Run, later: Run, changed: set[str]) -> Frames:
    """The rows of both runs, told apart by the factor ``run``.

    Request ids may be the same in both (same seed), so they are prefixed; replica ids are names
    of one run and mean nothing in the other, so they are left out.
    """
    shared = _phases(baseline) & _phases(later)
    requests, scores = [], []
    for name, run in ((BASE, baseline), (LATER, later)):
        looks = run.manifest.looks
        rows = before(judged_requests(run), "due_s", None if looks is None else looks.until_s)
        rows = rows[rows["phase"].isin(list(shared)) & ~rows["prompt_id"].isin(list(changed))]
        ids = f"{name}/" + rows["request_id"].astype("string")
        requests.append(rows.assign(request_id=ids, run=name, replica_id=None))
        mine = judged_scores(run)
        if mine is not None:
            ids = f"{name}/" + mine["request_id"].astype("string")
            scores.append(mine.assign(request_id=ids))
    return build_frames(
        pd.concat(requests, ignore_index=True),
        pd.concat(scores, ignore_index=True) if scores else None,
        None,
        later.manifest.scenario,
        level=later.manifest.level,
        further=("run",),
    )


def _phases(run: Run) -> set[str]:
    return {phase.name for phase in run.manifest.scenario.phases}


def _changed_prompts(baseline: Run, later: Run) -> set[str]:
    old, new = baseline.prompts, later.prompts
    return {prompt.id for prompt in new if prompt.id in old and old[prompt.id] != prompt}


def _differences(baseline: Run, later: Run, changed: set[str]) -> list[Warning]:
    """What differs between the runs beside time: named, so that it is not taken for drift."""
    old, new = baseline.manifest, later.manifest
    differs = [
        f"{name} ({before} → {after})"
        for name, before, after in (
            ("model", old.target.model, new.target.model),
            ("url", old.target.url, new.target.url),
            ("level", old.level, new.level),
        )
        if before != after
    ]
    for part in ("request", "phases", "tenants"):
        if getattr(old.scenario, part) != getattr(new.scenario, part):
            differs.append(f"scenario.{part}")
    if changed:
        differs.append(f"{len(changed)} prompts (left out)")
    differs += [
        f"length: the {words} run ended early, by its look at {looks.until_s:.0f} s"
        for words, looks in (("baseline", old.looks), ("later", new.looks))
        if looks is not None and looks.until_s is not None
    ]
    if not differs:
        return []
    detail = f"the runs also differ in {', '.join(differs)}"
    return [Warning(code=WarningCode.CONFOUNDED, detail=detail)]


def _drafts(frames: Frames, settings: Checks, warnings: list[Warning]) -> list[Draft]:
    drafts: list[Draft] = []
    for role, words in (("baseline", " at idle"), ("traffic", " under load")):
        base, side = (
            Side(frames.where(run=run, role=role), {"run": run, "role": role}, spoken)
            for run, spoken in ((BASE, "the baseline run"), (LATER, f"the later run{words}"))
        )
        if base.mask.any() and side.mask.any():
            drafts += score_drafts(
                CHECK, frames, settings.traffic_drift.rubrics, (side, base),
                settings.traffic_drift.score_margin, by="run", within=("phase",),
                windows=role == "traffic", warnings=warnings,
            )  # fmt: skip
    drafts += [_times(frames, settings, column, warnings) for column in ("ttft_due_s", "e2e_due_s")]
    drafts.append(_failed(frames, settings, warnings))
    return [_unprefixed(one) for one in drafts]


def _times(frames: Frames, settings: Checks, column: str, warnings: list[Warning]) -> Draft:
    q = settings.traffic_drift.quantile
    what = "TTFT" if column == "ttft_due_s" else "E2E"
    estimate = latency.quantile_ratio(
        frames,
        latency_s(frames, column),
        frames.where(run=LATER, role="traffic"),
        frames.where(run=BASE, role="traffic"),
        q,
        by="run",
    )
    return draft(
        CHECK, f"{column}.p{100 * q:g}", _also(estimate, warnings), unit="times",
        effect="ratio to the baseline run", margin=settings.tenant_fairness.latency_factor,
        slice_={"run": LATER, "role": "traffic"}, baseline={"run": BASE, "role": "traffic"},
        say=lambda f: wording.ratio_sentence(
            f, "the later run", f"p{100 * q:g} {what}", "the baseline run"
        ),
    )  # fmt: skip


def _failed(frames: Frames, settings: Checks, warnings: list[Warning]) -> Draft:
    estimate = rates.rate_excess(
        frames, failed_share(frames), frames.where(run=LATER), frames.where(run=BASE)
    )
    return draft(
        CHECK, "failed", _also(estimate, warnings), unit="ratio",
        effect="share without a whole answer above the baseline run's",
        margin=settings.fidelity.failure_margin,
        slice_={"run": LATER}, baseline={"run": BASE},
        say=lambda f: wording.share_sentence(
            f, "in the later run", ("requests", "get no answer"), "in the baseline run"
        ),
    )  # fmt: skip


def _also(estimate: Estimate, warnings: list[Warning]) -> Estimate:
    return replace(estimate, warnings=(*estimate.warnings, *warnings))


def _unprefixed(made: Draft) -> Draft:
    """Evidence is of the later run: its own request ids."""
    evidence = [name.removeprefix(f"{LATER}/") for name in made.finding.evidence]
    return replace(made, finding=made.finding.model_copy(update={"evidence": evidence}))


def _of_run(made: Draft, run: str) -> Draft:
    """A finding about one of the two runs, which its sentence names."""
    finding = made.finding.model_copy(update={"slice": {**made.finding.slice, "run": run}})
    words = "the baseline run" if run == BASE else "the later run"
    return replace(made, finding=finding, say=lambda f: f"{words}: {made.say(f)}")
