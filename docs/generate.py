"""Writes what is declared once in the code into the documents and schemas that show it.

``python -m docs.generate`` (``make docs``); a test holds that nothing is out of date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from clustereval.core.columns import CLUSTER_METRICS, TABLES
from clustereval.core.findings import WARNING_ADVICE, Finding, Findings
from clustereval.core.scenario import Scenario
from clustereval.load.rows import ERROR_TYPES

ROOT = Path(__file__).parent.parent


def findings_table() -> str:
    """The fields of a finding, as Markdown."""
    rows = ["| field | type | meaning |", "|---|---|---|"]
    schema = Finding.model_json_schema()
    for name, spec in schema["properties"].items():
        rows.append(f"| `{name}` | {_type(spec)} | {spec.get('description', '')} |")
    codes = [f"| `{code.value}` | {advice} |" for code, advice in WARNING_ADVICE.items()]
    rows += ["", "| warning `code` | what to do |", "|---|---|", *codes]
    return "\n".join(rows)


def tables() -> str:
    """Every table of a run with its columns, as Markdown."""
    parts = []
    for table in TABLES:
        columns = (f"| `{c.name}` | {c.type} | {c.stage} | {c.meaning} |" for c in table.columns)
        parts.append(
            f"### `{table.file}`: {table.row}\n\n"
            "| column | type | filled by | meaning |\n|---|---|---|---|\n" + "\n".join(columns)
        )
    metrics = "\n".join(
        f"| `{name}` | {metric.kind} | {metric.unit} | {metric.meaning} |"
        for name, metric in CLUSTER_METRICS.items()
    )
    head = "| metric | kind | unit | meaning |\n|---|---|---|---|\n"
    parts.append(
        f"Metrics of `cluster.parquet` (a counter is a total since the replica's start: take "
        f"differences):\n\n{head}{metrics}"
    )
    return "\n\n".join(parts)


def _type(spec: dict[str, object]) -> str:
    if "anyOf" in spec:
        return " or ".join(_type(part) for part in spec["anyOf"])  # type: ignore[attr-defined]
    if "$ref" in spec:
        return str(spec["$ref"]).rpartition("/")[2]
    return str(spec.get("type", "any"))


def error_types() -> str:
    """Every value of ``error_type``, as Markdown."""
    rows = ["| `error_type` | outcome | meaning |", "|---|---|---|"]
    for name, text in ERROR_TYPES.items():
        outcome, _, meaning = text.partition(": ")
        rows.append(f"| `{name}` | {outcome} | {meaning} |")
    return "\n".join(rows)


def scenario_keys() -> str:
    """Every key of a scenario with its default, as Markdown, by the mapping that it stands in."""
    root = Scenario.model_json_schema()
    models = {"Scenario": root, **root["$defs"]}
    parts = []
    for name in _in_reading_order("Scenario", models):
        model = models[name]
        rows = [
            f"| `{key}` | {_type(spec)} | {_default(spec)} | {_meaning(spec, models)} |"
            for key, spec in model["properties"].items()
        ]
        parts.append(
            f"### {name}\n\n{model['description']}\n\n"
            "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
        )
    return "\n\n".join(parts)


def _in_reading_order(name: str, models: dict[str, Any]) -> list[str]:
    """A model, and below it those that its keys lead to, each once."""
    found = [name]
    for target in re.findall(r"#/\$defs/(\w+)", json.dumps(models[name]["properties"])):
        found += [other for other in _in_reading_order(target, models) if other not in found]
    return found


def _default(spec: dict[str, Any]) -> str:
    return f"`{json.dumps(spec['default'])}`" if spec.get("default") is not None else ""


def _meaning(spec: dict[str, Any], models: dict[str, Any]) -> str:
    if "description" in spec:
        return str(spec["description"])
    if "const" in spec:
        return f"`{spec['const']}`"
    target = str(spec.get("$ref", "")).rpartition("/")[2]
    return str(models[target]["description"]) if target else ""


def schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON Schema of ``model``: of findings as written, of a scenario as it is read."""
    mode: Literal["serialization", "validation"] = (
        "serialization" if model is Findings else "validation"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode=mode),
        "title": title,
    }


def _as_text(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def documents() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    readme = ROOT / "reports" / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, body in (
        ("findings", findings_table()),
        ("tables", tables()),
        ("errors", error_types()),
    ):
        text = _between(text, name, body)
    guide = ROOT / "docs" / "scenario.md"
    return {
        readme: text,
        guide: _between(guide.read_text(encoding="utf-8"), "scenario", scenario_keys()),
        ROOT / "reports" / "findings.schema.json": _as_text(
            schema(Findings, "clustereval findings")
        ),
        ROOT / "scenarios" / "scenario.schema.json": _as_text(
            schema(Scenario, "clustereval scenario")
        ),
    }


def _between(text: str, name: str, body: str) -> str:
    start, end = f"<!-- generated: {name} -->", "<!-- end -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.S)
    replaced, count = pattern.subn(lambda _: f"{start}\n{body}\n{end}", text)
    if count != 1:
        raise ValueError(f"found {count} places for {name}, expected 1")
    return replaced


def main() -> None:
    """Writes every generated file."""
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
