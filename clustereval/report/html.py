"""``report.html``: one self-contained page from the files of a run.

It only says what analysis found, or draws what the tables hold. A file that is missing is named
on the page, with the command that makes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from clustereval.core.columns import CLUSTER, REQUESTS, SCORES
from clustereval.report import aggregates as agg
from clustereval.report import examples, placement, redact, story
from clustereval.report.checks_view import check_rows, reasons
from clustereval.report.drawing import PALETTE
from clustereval.report.early import stopped_early
from clustereval.report.engine_view import engine_chart
from clustereval.report.forest import WIDTH, axis_px
from clustereval.report.goodput_view import goodput_chart, headline
from clustereval.report.names import QUESTIONS, SYMBOLS, TITLES
from clustereval.report.numbers import count, duration, percent, seconds
from clustereval.report.plaintext import script_json, visible
from clustereval.report.starts_view import replica_starts
from clustereval.report.trust import trust
from clustereval.report.ttft_view import ttft_chart
from clustereval.report.users_view import user_facts
from clustereval.report.warmup_view import warmup_view
from clustereval.rundir import FINDINGS, PROMPTS, REPORT, Manifest, Run

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from clustereval.core.findings import Findings
    from clustereval.core.prompts import PromptLibrary

LEVELS: Final = {
    "client": "the client alone",
    "ray": "client and Ray dashboard",
    "probe": "client and probe",
}


@dataclass(frozen=True)
class Tables:
    """What a run's folder holds; null where the stage that writes it has not run."""

    manifest: Manifest
    requests: pd.DataFrame | None
    cluster: pd.DataFrame | None
    scores: pd.DataFrame | None
    findings: Findings | None
    prompts: PromptLibrary | None

    @classmethod
    def read(cls, run: Run) -> Tables:
        return cls(
            manifest=run.manifest,
            requests=run.requests if run.has(REQUESTS.file) else None,
            cluster=run.cluster if run.has(CLUSTER.file) else None,
            scores=run.scores if run.has(SCORES.file) else None,
            findings=run.findings if run.has(FINDINGS) else None,
            prompts=run.prompts if run.has(PROMPTS) else None,
        )


def write_report(run: Run) -> Path:
    """Writes ``report.html`` into the run's folder; returns its path.

    Raises:
        RunFolderError: a file of the run is damaged, or the page cannot be written.
    """
    run.write_text(REPORT, page(Tables.read(run), str(run.folder)))
    return run.path(REPORT)


def page(tables: Tables, folder: str) -> str:
    """The whole page as text."""
    requests, scores, findings = tables.requests, tables.scores, tables.findings
    manifest = tables.manifest
    rubric = None if scores is None else agg.main_rubric(scores)
    values = None
    if requests is not None and scores is not None and rubric is not None:
        values = agg.scored(requests, scores, rubric)
    charts: list[story.Chart] = []
    chosen: dict[str, Any] = {"items": [], "prompts": {}, "left_out": 0}
    if requests is not None and len(requests):
        charts = [
            story.timeline(requests, tables.cluster, values, rubric),
            engine_chart(requests, tables.cluster),
            *story.against_load(requests, values, rubric, manifest.scenario.buckets),
            ttft_chart(requests),
        ]
        carried = goodput_chart(findings.goodput if findings else None)
        charts += [carried] if carried else []
        choices = examples.choose(requests, values, findings)
        chosen = examples.build(choices, requests, scores, tables.prompts)
    data = {
        "figures": {chart.id: chart.figure for chart in charts if chart.figure},
        "examples": chosen,
        "palette": list(PALETTE.values()),
        "titles": TITLES,
    }
    some = None if requests is None or requests.empty else requests
    context = {
        "title": manifest.name,
        "manifest": manifest,
        "verdict": _verdict(findings),
        "checks": check_rows(findings) if findings else [],
        "questions": QUESTIONS,
        "titles": TITLES,
        "symbols": SYMBOLS,
        "forest": {"width": WIDTH, "none": axis_px(0), "margin": axis_px(1)},
        "missing": _missing(tables, folder),
        "facts": _facts(manifest, requests),
        "charts": {chart.id: chart for chart in charts},
        "map": None if some is None else placement.replica_map(some, scores, findings),
        "goodput": headline(findings.goodput) if findings else None,
        "warmup": warmup_view(findings.warmup) if findings else None,
        "starts": None if some is None else replica_starts(some, tables.cluster),
        "replicas_seen": some is not None and bool(some.replica_id.notna().any()),
        "scored": values is not None and len(values) > 0,
        "tenants": []
        if some is None
        else placement.tenant_rows(some, values, manifest.scenario, findings),
        "how_to_see": story.HOW_TO_SEE_CLUSTER,
        "trust": trust(manifest, requests, scores, findings, rubric),
        "examples": len(chosen["items"]),
        "repeat": _repeat(manifest, findings, folder),
    }
    return _render(context, data)


def _verdict(findings: Findings | None) -> dict[str, Any]:
    if findings is None:
        return {"outcome": "none", "word": "no verdict yet", "sentence": "", "because": []}
    verdict = findings.verdict
    words = {"invalid": "no valid run"}
    outcome = verdict.outcome.value
    sentence = verdict.sentence
    # The word stands beside the sentence already.
    for prefix in (f"{outcome.upper()}: ", f"{outcome}: ", f"{outcome.capitalize()}: "):
        sentence = sentence.removeprefix(prefix)
    sentence = sentence[:1].upper() + sentence[1:]
    because = reasons(findings)
    return {
        "outcome": outcome,
        "word": words.get(outcome, outcome),
        "sentence": sentence,
        "because": because,
    }


def _missing(tables: Tables, folder: str) -> list[tuple[str, str]]:
    """What is not there, and what makes it."""
    score = f"clustereval score {shlex.quote(folder)}"
    notes = []
    if early := stopped_early(tables.manifest):
        notes.append((f"{early[:1].upper()}{early[1:]}.", ""))
    elif tables.manifest.state != "complete":
        notes.append((f"This run is {tables.manifest.state}: the page shows what had arrived.", ""))
    if tables.requests is None:
        notes.append(("No request table (requests.parquet).", score))
    if tables.cluster is None:
        notes.append(("No cluster samples (cluster.parquet).", score))
    if tables.scores is None:
        notes.append(("No scores (scores.parquet).", score))
    if tables.findings is None:
        notes.append(("No verdict (findings.json).", score))
    return notes


def _facts(manifest: Manifest, requests: pd.DataFrame | None) -> list[tuple[str, str]]:
    """The run in one line."""
    target = manifest.target
    where = (
        "virtual time: simulated, not measured" if manifest.simulated else redact.url(target.url)
    )
    facts = [("model", target.model), ("at", where)]
    if target.app:
        facts.append(("app", target.app))
    if target.faults:
        planted = ", ".join(
            name if strength is None else f"{name}={strength:g}"
            for name, strength in target.faults.items()
        )
        facts.append(("planted fault", planted))
    facts.append(("scenario", manifest.scenario.name))
    if manifest.t0_unix_s is not None:
        moment = time.strftime("%d %b %Y, %H:%M UTC", time.gmtime(manifest.t0_unix_s))
        facts.append(("started", moment))
    if manifest.ended_s is not None:
        facts.append(("took", duration(manifest.ended_s)))
    if requests is not None and len(requests):
        answered = int((requests.outcome == "ok").sum())
        share = percent(answered / len(requests))
        facts.append(("answered", f"{count(answered)} of {count(len(requests))} ({share})"))
        facts += user_facts(requests)
    facts.append(("observed by", LEVELS.get(manifest.level or "", "unknown")))
    if requests is not None:
        late = agg.lateness(requests)
        facts.append(("client late, p99", seconds(late["p99"])))
    return facts  # fmt: skip


def _repeat(manifest: Manifest, findings: Findings | None, folder: str) -> dict[str, Any]:
    scenario = redact.redacted(manifest.scenario.model_dump(mode="json", exclude_none=True))
    return {
        "command": shlex.join(redact.command(manifest.command)) or "not recorded",
        "again": f"clustereval score {shlex.quote(folder)}",
        "seed": manifest.seed,
        "versions": manifest.versions,
        "hashes": manifest.hashes,
        "scenario": yaml.safe_dump(scenario, sort_keys=False, allow_unicode=True),
        "context": json.dumps(redact.redacted(findings.context), indent=2, ensure_ascii=False)
        if findings and findings.context
        else "",
    }


# -- rendering ---------------------------------------------------------------------------


def _render(context: dict[str, Any], data: dict[str, Any]) -> str:
    assets = {name: _asset(name) for name in ("plotly-basic.min.js", "report.js", "report.css")}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_clean,
    )  # fmt: skip
    environment.filters["prose"] = prose
    environment.filters["asdict"] = asdict
    return environment.from_string(_asset("report.html.j2")).render(
        **context,
        csp=policy(assets),
        css=Markup(assets["report.css"]),
        plotly_js=Markup(assets["plotly-basic.min.js"]) if data["figures"] else None,
        report_js=Markup(assets["report.js"]),
        data=Markup(script_json(data)),
    )


def policy(assets: dict[str, str]) -> str:
    """The page's Content-Security-Policy: no network, and only the page's own scripts.

    Styles need ``'unsafe-inline'``: plotly sets ``style`` attributes on the SVG it draws and adds
    a style element. A style can load nothing here, since every source is ``'none'``.
    """
    scripts = " ".join(
        f"'sha256-{_sha256(text)}'" for name, text in assets.items() if name.endswith(".js")
    )
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def prose(text: object) -> Markup:
    """Text with ```code``` in backticks set as code; everything else escaped."""
    parts = visible(text).split("`")
    if len(parts) % 2 == 0:
        return escape(visible(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def _clean(value: object) -> object:
    """Every text that a template prints is made visible first; markup of our own passes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _asset(name: str) -> str:
    return files("clustereval.report").joinpath("template", name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
