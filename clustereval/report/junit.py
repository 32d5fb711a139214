"""``junit.xml``: the checks as test cases, for Jenkins, GitLab and whatever else reads JUnit.

One test case per check, not per finding: CI systems follow a test over time by its name, and
replica ids change with every run. The findings stand in the message and the body.

==============================  ========================================================
check                           test case
==============================  ========================================================
pass                            passed
fail                            ``<failure>``; ``run_health``: ``<error type="invalid">``
inconclusive or not observed    ``<error>`` where the scenario requires the check, else
                                ``<skipped>`` with the reason
remark                          ``<skipped>`` with what was found
==============================  ========================================================

A suite without failure or error therefore is one that ended with exit code 0: where the verdict
is not *pass* and no check says why, a test case ``verdict`` does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from clustereval.core.findings import CheckResult, Finding, Findings, Outcome, Status
from clustereval.report.checks_view import deciding, place, what_to_do
from clustereval.report.names import SEVERITY
from clustereval.report.numbers import count, margin_text, scale_of
from clustereval.report.plaintext import one_line, xml_text
from clustereval.rundir import FINDINGS, JUNIT, Manifest, Run

if TYPE_CHECKING:
    from pathlib import Path

_MESSAGE_CHARS: Final = 500
_MOST_FINDINGS: Final = 20


def write_junit(run: Run) -> Path:
    """Writes ``junit.xml`` into the run's folder; returns its path.

    Raises:
        RunFolderError: the manifest or the findings are damaged, or it cannot be written.
    """
    findings = run.findings if run.has(FINDINGS) else None
    run.write_text(JUNIT, junit(findings, run.manifest))
    return run.path(JUNIT)


def junit(findings: Findings | None, manifest: Manifest) -> str:
    """The document as text; without findings, one erroneous test case that says so."""
    suite = ElementTree.Element("testsuite", name=_attribute(f"clustereval.{manifest.name}"))
    took = f"{manifest.ended_s or 0:.3f}"
    if manifest.t0_unix_s is not None:
        moment = time.gmtime(manifest.t0_unix_s)
        suite.set("timestamp", time.strftime("%Y-%m-%dT%H:%M:%S", moment))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(findings, manifest).items():
        ElementTree.SubElement(properties, "property", name=name, value=_attribute(value))
    classname = _attribute(f"clustereval.{manifest.scenario.name}")
    for check in findings.checks if findings else []:
        assert findings is not None
        case = _case(suite, classname, check.check)
        _result(case, check, findings)
    if not _explained(suite, findings):
        sentence = findings.verdict.sentence if findings else "no findings: analysis has not run"
        case = _case(suite, classname, "verdict")
        kind = findings.verdict.outcome.value if findings else "no_verdict"
        _child(
            case, "error", kind, sentence, "\n".join(findings.verdict.because if findings else [])
        )
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    # The run has one duration; a check has none of its own.
    suite.set("time", took)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _explained(suite: ElementTree.Element, findings: Findings | None) -> bool:
    """Whether the test cases show what the exit code says."""
    if findings is None:
        return False
    bad = suite.findall("testcase/failure") or suite.findall("testcase/error")
    return findings.verdict.outcome is Outcome.PASS or bool(bad)


def _properties(findings: Findings | None, manifest: Manifest) -> dict[str, str]:
    values = {
        "scenario": manifest.scenario.name,
        "model": manifest.target.model,
        "seed": str(manifest.seed),
        "level": manifest.level or "unknown",
    }
    if findings is not None:
        values["verdict"] = findings.verdict.outcome.value
        values["sentence"] = findings.verdict.sentence
    return values


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=classname, name=_attribute(name), time="0"
    )


def _result(case: ElementTree.Element, check: CheckResult, findings: Findings) -> None:
    body = _body(check, findings)
    if check.status is Status.PASS:
        ElementTree.SubElement(case, "system-out").text = xml_text(body)
    elif check.status is Status.FAIL and check.check == "run_health":
        _child(case, "error", "invalid", check.sentence, body)
    elif check.status is Status.FAIL:
        _child(case, "failure", "margin", check.sentence, body)
    else:
        message = check.not_observed or check.sentence
        _child(case, "error" if check.required else "skipped", check.status.value, message, body)


def _child(case: ElementTree.Element, tag: str, kind: str, message: str, body: str) -> None:
    child = ElementTree.SubElement(case, tag, message=_attribute(message))
    if tag != "skipped":  # The common schemas know no type there.
        child.set("type", kind)
    child.text = xml_text(body)


def _body(check: CheckResult, findings: Findings) -> str:
    """The findings that decide the check, one a line, worst first, and what to do."""
    mine = findings.of(check.check)
    own = [f for f in mine if f.gate] or mine  # a remark rests on findings that gate nothing
    own = sorted(own, key=lambda f: SEVERITY[f.status])
    lines = [one_line(check.sentence, 1000)] if check.sentence else []
    lines += [_line(finding) for finding in own[:_MOST_FINDINGS]]
    if len(own) > _MOST_FINDINGS:
        lines.append(f"… {len(own) - _MOST_FINDINGS} more in findings.json")
    todo = what_to_do(check, deciding(check, findings))
    if todo:
        lines.append(f"what to do: {one_line(todo, 1000)}")
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    scale = scale_of(finding)
    where = place(finding.slice) or "whole run"
    return one_line(
        f"{finding.status.value}: {finding.metric}, {where}: {scale.amount(finding.estimate)} "
        f"[{scale.interval(finding.low, finding.high)}], margin {margin_text(finding)}, "
        f"n {count(finding.n)}",
        400,
    )


def _attribute(text: str) -> str:
    return xml_text(one_line(text, _MESSAGE_CHARS))
