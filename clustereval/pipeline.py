"""One run from scenario to verdict: calls each stage once, in order, and says where it stands.

Every stage leaves its files in the run's folder, so whatever ends a run early (Ctrl-C, a full disk,
a target that dies) what had arrived is still scored and reported.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clustereval.analysis.power.outlook import outlook
from clustereval.analysis.power.priors import Priors
from clustereval.analysis.sequential import plan_looks
from clustereval.analysis.verdict import analyse
from clustereval.core.api_keys import api_key
from clustereval.core.columns import PLAN
from clustereval.core.errors import (
    InterruptedRunError,
    InvalidRunError,
    RunFolderError,
    ScenarioError,
    TargetError,
)
from clustereval.core.findings import Findings
from clustereval.core.scenario_file import LoadedScenario
from clustereval.core.urls import BASE_URL, split_url
from clustereval.load.arrivals import describe_plan, make_plan
from clustereval.load.engine import ALONE, Workers
from clustereval.load.users import all_models
from clustereval.localapp import LocalApp
from clustereval.observe.calibration import calibrate_run, kept_note, needs_calibration
from clustereval.observe.dashboard import dashboard_url
from clustereval.observe.join import join
from clustereval.observe.lost import lost_sight
from clustereval.observe.otlp import export_spans, traces_url
from clustereval.observe.ray_cluster import RayObserver
from clustereval.observe.target import TargetFacts, inspect_target, resolve_model
from clustereval.report.html import write_report
from clustereval.report.junit import write_junit
from clustereval.report.plan_text import outlook_line
from clustereval.rundir import (
    FINDINGS,
    PROMPTS,
    RAW_APP_LOG,
    RAW_RESPONSES,
    Manifest,
    Run,
    Target,
    versions,
)
from clustereval.scoring.registry import load_scorers, require_applicable
from clustereval.scoring.score import score_run
from clustereval.traffic import Progress, adopt_load, send
from serve_apps.registry import App, find_app


@dataclass(frozen=True)
class Request:
    """What the user asked for, beside the scenario."""

    out: Path
    target: str | None = None
    app: str | None = None
    model: str | None = None
    faults: dict[str, float | None] = field(default_factory=dict)
    api_key_env: str | None = None
    ray_dashboard: str | None = None
    otlp: str | None = None
    seed: int | None = None
    stop_early: bool = False
    stop_on_fail: bool = False
    workers: Workers = ALONE
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, what was found, and whether the user cut it short."""

    run: Run
    findings: Findings
    interrupted: bool


def run_scenario(loaded: LoadedScenario, request: Request, progress: Progress) -> Result:
    """Runs ``loaded`` against what ``request`` names, judges it, and writes the report.

    Ctrl-C while traffic is sent ends the traffic, not the run: what arrived is judged.

    Raises:
        ClusterEvalError: nothing could be tested; says why.
    """
    if request.target is None and request.app is None:
        raise ScenarioError("nothing to test", expected="a target URL, or an app to start")
    _require_usable(loaded, request)
    _require_rubrics(loaded)
    seed = loaded.scenario.seed if request.seed is None else request.seed
    run = Run.create(request.out, _manifest(loaded, request, seed))
    with _removed_unless_sent(run), ExitStack() as stack:
        run.write_prompts(loaded.prompts)
        _find_target(run, request, stack, progress)
        progress.stage("looking at the target")
        # A target that scales from zero may need as long for its first answer as any request may.
        timeout_s = max(30.0, loaded.scenario.request.timeout_s)
        facts = inspect_target(run.manifest.target, timeout_s=timeout_s)
        for note in facts.notes:
            progress.note(note)
        if unlisted := facts.unlisted(all_models(loaded.scenario.tenants)):
            progress.note(f"the target lists no model {', '.join(unlisted)}: all may be HTTP 404")
        observer = _observer(run, progress)
        plan = make_plan(
            loaded, seed=seed, salt=secrets.token_hex(4), replicas=len(facts.pin_ranks) or None,
            model=facts.model,
        )  # fmt: skip
        run.write_table(PLAN, plan)
        if needs_calibration(plan):
            progress.stage("counting the target's tokens")
            for note in calibrate_run(run, plan, timeout_s):
                progress.note(note)
        if request.stop_early or request.stop_on_fail:
            confidence = loaded.scenario.checks.confidence
            looks = plan_looks(plan, confidence, on_fail=request.stop_on_fail)
            run.update_manifest(looks=looks)
        progress.plan(describe_plan(plan))
        progress.sees(outlook_line(outlook(loaded, plan, _priors(facts, observer))))
        interrupted = send(run, observer, progress, request.workers)
        # The local app ends here, before the analysis wants its cores.
    progress.stage("joining, scoring and judging")
    with _kept(run):
        findings = judge(run, otlp=request.otlp, note=progress.note)
        publish(run)
    return Result(run, findings, interrupted)


def judge(
    run: Run, *, otlp: str | None = None, note: Callable[[str], None] | None = None
) -> Findings:
    """Joins, scores and analyses what arrived in ``run``; can be done again at any time.

    Raises:
        InvalidRunError: nothing was sent.
        RunFolderError: a file is missing or damaged.
    """
    if not run.manifest.simulated:  # whose tables are its raw data
        _join(run, note)
    spans = export_spans(run, otlp)
    if spans.problem and note:
        note(spans.problem)
    score_run(run)
    findings = analyse(run)
    run.update_manifest(hashes=run.hash_files())
    return findings


def _join(run: Run, note: Callable[[str], None] | None) -> None:
    adopt_load(run)
    if not run.has(RAW_RESPONSES):
        raise InvalidRunError(
            f"{run.folder}: nothing was sent: there is no {RAW_RESPONSES}",
            change="run it again: `clustereval run`",
        )
    join(run)
    if note and (kept := kept_note(run.requests)):
        note(kept)
    if note:
        for sentence in lost_sight(run.manifest.observation, run.manifest.level):
            note(f"Ray's view: {sentence}")


@contextmanager
def _kept(run: Run) -> Iterator[None]:
    """What goes wrong once the traffic is over costs no traffic."""
    try:
        yield
    except RunFolderError as error:
        raise InvalidRunError(
            error.found, expected=error.expected, change=f"free space; {_the_rest(run)}"
        ) from None
    except KeyboardInterrupt:
        raise _interrupted(run) from None


def _interrupted(run: Run) -> InterruptedRunError:
    return InterruptedRunError("interrupted before the verdict", change=_the_rest(run))


def _the_rest(run: Run) -> str:
    return (
        f"what arrived is kept: `clustereval score {run.folder}` and"
        f" `clustereval report {run.folder}` make the rest"
    )


def publish(run: Run) -> tuple[Path, Path | None]:
    """Writes ``report.html``, and ``junit.xml`` where there are findings; returns their paths."""
    junit = write_junit(run) if run.has(FINDINGS) else None
    page = write_report(run)
    run.update_manifest(hashes=run.hash_files())
    return page, junit


# -- before the load -------------------------------------------------------------------------


def _require_usable(loaded: LoadedScenario, request: Request) -> None:
    """Refuses URLs and keys that cannot be used before anything is started or written."""
    last = loaded.scenario.phases[-1]
    if (request.stop_early or request.stop_on_fail) and last.role != "traffic":
        raise ScenarioError(
            f"ending early: the last phase, {last.name!r}, is {last.role}",
            expected="traffic in the last phase: that is what ends early",
        )
    if (request.stop_early or request.stop_on_fail) and last.steps is not None:
        raise ScenarioError(
            f"ending early: the last phase, {last.name!r}, is stepped, and steps decide no gate",
            expected="a last phase without steps: a look would end the run before they were sent",
            change="leave --stop-early and --stop-on-fail out",
        )
    if request.target is not None:
        split_url(request.target, "--target", BASE_URL)
    if request.ray_dashboard is not None:
        dashboard_url(request.ray_dashboard)
    if request.otlp is not None:
        traces_url(request.otlp)
    tenants = loaded.scenario.tenants
    for variable in (request.api_key_env, *(v for t in tenants for v in t.key_variables)):
        api_key(variable)


def _require_rubrics(loaded: LoadedScenario) -> None:
    """Refuses rubrics that no prompt can be scored on before any traffic is spent on them."""
    require_applicable(
        loaded.scenario.checks.demanded_rubrics(),
        loaded.prompts,
        load_scorers(),
        has_baseline=any(phase.role == "baseline" for phase in loaded.scenario.phases),
    )


def _manifest(loaded: LoadedScenario, request: Request, seed: int) -> Manifest:
    return Manifest(
        name=request.out.name,
        command=list(request.command),
        scenario=loaded.scenario,
        seed=seed,
        target=Target(
            url=request.target or "",
            model=request.model or "",
            api_key_env=request.api_key_env,
            ray_dashboard=request.ray_dashboard,
            app=request.app,
            faults=request.faults,
        ),
        versions=versions(),
    )


@contextmanager
def _removed_unless_sent(run: Run) -> Iterator[None]:
    """A run in which nothing was sent leaves no folder: the message says what was wrong."""
    try:
        yield
    except BaseException as error:
        if not run.has(RAW_RESPONSES):
            shutil.rmtree(run.folder, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            raise _interrupted(run) from None
        raise


def _find_target(run: Run, request: Request, stack: ExitStack, progress: Progress) -> None:
    """Starts the local app if one was asked for, and settles URL, model and dashboard."""
    target = run.manifest.target
    if request.app is not None:
        note_unknown_prompts(run, find_app(request.app), progress)
        progress.stage(f"starting the app {request.app!r} on a Ray Serve cluster of its own")
        app = stack.enter_context(
            LocalApp.start(
                request.app,
                faults=request.faults,
                otlp=request.otlp,
                log=run.path(RAW_APP_LOG),
                prompt_files=[run.path(PROMPTS)],
                settings=find_app(request.app).serving(all_models(run.manifest.scenario.tenants)),
            )
        )
        for note in app.notes:
            progress.note(note)
        changes = {
            "url": app.url,
            "model": request.model or app.model,
            "ray_dashboard": request.ray_dashboard or app.dashboard,
        }
    else:
        url = target.url.rstrip("/")
        changes = {"url": url, "model": resolve_model(url, request.model, request.api_key_env)}
    run.update_manifest(target=target.model_copy(update=changes))


def note_unknown_prompts(run: Run, app: App, progress: Progress) -> None:
    """A small model fails prompts that it was not trained for: that is no fault of the cluster."""
    given = [
        file
        for files in run.manifest.scenario.prompt_sets.values()
        for file in ([files] if isinstance(files, str) else files)
    ]
    known = {Path(file).name for file in app.knows or given}
    if unknown := [file for file in given if Path(file).name not in known]:
        progress.note(
            f"the model that ships with the app {app.name} answers {' and '.join(app.knows or ())}"
            f" only, not {', '.join(unknown)}:"
            f" --set '{app.prompt_override}'"
        )


def _priors(facts: TargetFacts, observer: RayObserver | None) -> Priors:
    """What the target shows before the load; the rest is assumed."""
    known: dict[str, Any] = {
        "level": "probe" if facts.probed else "ray" if observer else "client",
    }
    if replicas := len(facts.pin_ranks) or facts.replica_count:
        known["replicas"] = replicas
    return Priors.model_validate(known)


def _observer(run: Run, progress: Progress) -> RayObserver | None:
    if run.manifest.target.ray_dashboard is None:
        return None
    try:
        return RayObserver(run)
    except TargetError as error:
        # What the user did not ask for must not stop the run; what they asked for must.
        if run.manifest.target.app is None:
            raise
        progress.note(str(error))
        return None
