"""JSON Schemas of what users write and read, generated from the models.

``python -m clustereval.report.schema`` writes them anew in a checkout; a test holds them current.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from clustereval.core.findings import Findings
from clustereval.core.scenario import Scenario

FINDINGS_SCHEMA: Final = "reports/findings.schema.json"
SCENARIO_SCHEMA: Final = "scenarios/scenario.schema.json"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """Path in the repository → schema: of ``findings.json`` as written, of scenarios as read."""
    findings = Findings.model_json_schema(mode="serialization")
    return {
        FINDINGS_SCHEMA: {"$schema": _DIALECT, **findings},
        SCENARIO_SCHEMA: {"$schema": _DIALECT, **Scenario.model_json_schema()},
    }


def as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas(root: Path) -> list[Path]:
    """Writes every schema under ``root``; returns the paths."""
    written = []
    for name, schema in schemas().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(schema), encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    for path in write_schemas(Path.cwd()):
        print(path)
