"""junit.xml: valid against the common structure, and true to the exit code."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from clustereval.core.findings import Findings, Outcome, Status
from clustereval.report.junit import junit, write_junit
from clustereval.rundir import JUNIT, Manifest, Run, Target
from tests.report.samples import sample_findings
from tests.support.synthetic import scenario

MANIFEST = Manifest(
    name="run", scenario=scenario(), seed=1, t0_unix_s=1.76e9, ended_s=240.4, level="probe",
    target=Target(url="http://127.0.0.1:8000/v1", model="synthetic"),
)  # fmt: skip

# The part of the JUnit schemas on which Jenkins (junit-10.xsd) and GitLab agree.
ALLOWED: dict[str, tuple[set[str], set[str], list[str]]] = {
    # element: (required attributes, optional attributes, children in order)
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"skipped", "time", "timestamp", "hostname", "id", "package"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set(), set(), ["property"]),
    "property": ({"name", "value"}, set(), []),
    "testcase": (
        {"name", "classname"},
        {"time", "status"},
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "failure": (set(), {"message", "type"}, []),
    "error": (set(), {"message", "type"}, []),
    "skipped": (set(), {"message"}, []),
    "system-out": (set(), set(), []),
}


SCHEMA = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")


def validate(text: str) -> ElementTree.Element:
    """The parsed document, after every element was held against ``ALLOWED``."""
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, optional, children = ALLOWED[element.tag]
        assert required <= set(element.attrib) <= required | optional
        order = [children.index(child.tag) for child in element]
        assert order == sorted(order)
        if element.tag == "testcase":
            assert sum(child.tag in ("skipped", "error", "failure") for child in element) <= 1
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[name]) == sum(case.find(tag) is not None for case in cases)
        assert re.fullmatch(r"\d+\.\d+", suite.attrib["time"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
        assert len(names) == len(set(names))
    return root


def result(root: ElementTree.Element, name: str) -> tuple[str, str | None]:
    case = root.find(f"testsuite/testcase[@name='{name}']")
    assert case is not None
    child = next((item for item in case if item.tag != "system-out"), None)
    return ("passed", None) if child is None else (child.tag, child.get("type"))


def test_each_status_becomes_what_ci_systems_show() -> None:
    """Pass, failure, and skipped with the reason; findings and remedy in the body."""
    root = validate(junit(sample_findings(), MANIFEST))
    assert result(root, "fidelity") == ("passed", None)
    assert result(root, "replica_skew") == ("failure", "margin")
    assert result(root, "cache_eviction") == ("skipped", None)
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.text is not None
    assert "fail: correct, replica r2: 9.2 pt [5.1 to 13.4]" in failure.text
    assert "what to do: take `r2` out of rotation" in failure.text


def test_a_remark_is_skipped_and_says_what_was_found() -> None:
    """It neither reddens a build nor looks like a check that found nothing."""
    root = validate(junit(sample_findings(), MANIFEST))
    assert result(root, "streaming") == ("skipped", None)
    remark = root.find("testsuite/testcase[@name='streaming']/skipped")
    assert remark is not None
    assert "streamed answers were held back" in remark.attrib["message"]
    assert "fail: held_back, whole run: 97.0% [95.8 to 97.9]" in (remark.text or "")
    assert "stream_batching_interval_ms" in (remark.text or "")


def test_a_required_check_that_is_not_decided_is_an_error() -> None:
    """The verdict is inconclusive then, so the suite must not look green."""
    findings = sample_findings(Outcome.INCONCLUSIVE)
    check = findings.checks[3]
    check.required = True
    assert result(validate(junit(findings, MANIFEST)), "cache_eviction") == (
        "error", "not_observed",
    )  # fmt: skip


def test_an_invalid_run_is_an_error_not_a_failure() -> None:
    """run_health judges the run, not the target."""
    findings = sample_findings(Outcome.INVALID)
    findings.checks[-1].status = Status.FAIL
    assert result(validate(junit(findings, MANIFEST)), "run_health") == ("error", "invalid")


@pytest.mark.parametrize(
    ("outcome", "status", "required"),
    list(itertools.product(Outcome, Status, (True, False))),
)
def test_a_green_suite_means_exit_code_zero(
    outcome: Outcome, status: Status, required: bool
) -> None:
    """Whatever the checks say: without failure or error the verdict was pass, else never."""
    findings = sample_findings(outcome)
    for check in findings.checks:
        check.status, check.required = status, required
    suite = validate(junit(findings, MANIFEST)).find("testsuite")
    assert suite is not None
    bad = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    if bad == 0:
        assert outcome.exit_code == 0
    if outcome.exit_code != 0:
        assert bad > 0


def test_without_findings_one_case_says_so() -> None:
    """An interrupted run does not look like one that passed."""
    root = validate(junit(None, MANIFEST))
    assert result(root, "verdict") == ("error", "no_verdict")


@given(st.text(st.characters(codec=None, exclude_categories=()), min_size=1))
def test_any_text_gives_a_valid_document(text: str) -> None:
    """Control characters, lone surrogates and markup from a model never break the XML."""
    findings: Findings = sample_findings()
    findings.checks[1].sentence = text
    findings.checks[3].not_observed = text
    findings.findings[0].remedy = text
    findings.findings[0].slice = {"replica_id": text}
    validate(junit(findings, MANIFEST))


def test_it_is_written_into_the_runs_folder(tmp_path: Path) -> None:
    """One file, named as the run folder's contract says."""
    run = Run.create(tmp_path / "run", MANIFEST)
    run.write_findings(sample_findings())
    assert write_junit(run) == run.path(JUNIT)
    validate(run.path(JUNIT).read_text(encoding="utf-8"))
