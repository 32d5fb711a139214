"""The JSON Schemas accept what is written and read, and refuse what is not."""

from __future__ import annotations

import json

import jsonschema_rs

from clustereval.core.findings import Findings
from clustereval.core.scenario import Scenario
from docs.generate import schema
from tests.report.samples import sample_findings
from tests.support.synthetic import scenario


def test_findings_json_validates_and_a_broken_one_does_not() -> None:
    """The schema accepts what is written, and refuses a status that does not exist."""
    validator = jsonschema_rs.validator_for(schema(Findings, "t"))
    data = json.loads(sample_findings().model_dump_json())
    validator.validate(data)
    data["findings"][0]["status"] = "fine"
    assert not validator.is_valid(data)


def test_the_scenario_schema_knows_misspelt_keys() -> None:
    """Editors underline what the reader would refuse."""
    validator = jsonschema_rs.validator_for(schema(Scenario, "t"))
    data = scenario().model_dump(mode="json", exclude_none=True)
    validator.validate(data)
    assert not validator.is_valid({**data, "phasse": []})
