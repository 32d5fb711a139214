"""The JSON Schemas in the repository are those of the models."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest

from clustereval.report.schema import FINDINGS_SCHEMA, SCENARIO_SCHEMA, as_text, schemas
from tests.report.samples import sample_findings
from tests.support.synthetic import scenario

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [FINDINGS_SCHEMA, SCENARIO_SCHEMA])
def test_the_shipped_schema_is_current(name: str) -> None:
    """Run ``python -m clustereval.report.schema`` where this fails."""
    assert (ROOT / name).read_text(encoding="utf-8") == as_text(schemas()[name])


def test_findings_json_validates_and_a_broken_one_does_not() -> None:
    """The schema accepts what is written, and refuses a status that does not exist."""
    validator = jsonschema_rs.validator_for(schemas()[FINDINGS_SCHEMA])
    data = json.loads(sample_findings().model_dump_json())
    validator.validate(data)
    data["findings"][0]["status"] = "fine"
    assert not validator.is_valid(data)


def test_the_scenario_schema_knows_misspelt_keys() -> None:
    """Editors underline what the reader would refuse."""
    validator = jsonschema_rs.validator_for(schemas()[SCENARIO_SCHEMA])
    data = scenario().model_dump(mode="json", exclude_none=True)
    validator.validate(data)
    assert not validator.is_valid({**data, "phasse": []})
