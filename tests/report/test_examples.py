"""The worst answers: which are shown, beside what, and how the difference is marked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustereval.report import aggregates as agg
from clustereval.report import examples
from clustereval.report.plaintext import visible
from clustereval.rundir import Run
from tests.report.samples import lively_run, sample_findings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lively_run(tmp_path_factory.mktemp("examples") / "run", rows=2400, error_ratio=0.02)


@given(st.text(max_size=120), st.text(max_size=120))
def test_marked_answers_lose_and_add_nothing(idle: str, loaded: str) -> None:
    """Both texts come back whole, and what is marked as common is common to both."""
    left, right = examples.marked(idle, loaded)
    assert left is not None
    assert right is not None
    assert "".join(text for _, text in left) == visible(idle)
    assert "".join(text for _, text in right) == visible(loaded)
    assert {mark for mark, _ in left} <= {"=", "-"}
    assert {mark for mark, _ in right} <= {"=", "+"}
    common = ["".join(text for mark, text in runs if mark == "=") for runs in (left, right)]
    assert common[0] == common[1]


def test_the_difference_reads_as_words() -> None:
    """A changed word is marked whole, not letter by letter."""
    assert examples.marked("the sky is blue", "the sky is black") == (
        [["=", "the sky is "], ["-", "blue"]],
        [["=", "the sky is "], ["+", "black"]],
    )


def test_a_missing_answer_is_null_and_the_other_is_unmarked() -> None:
    """No answer is not an empty answer."""
    assert examples.marked(None, "text") == (None, [["=", "text"]])
    assert examples.marked("text", None) == ([["=", "text"]], None)


def test_evidence_of_failed_findings_comes_first(run: Run) -> None:
    """The first shown is the failed check's worst; each finding gives one before any gives two."""
    values = agg.scored(run.requests, run.scores, "correct")
    findings = sample_findings()
    findings.findings[3].evidence = ["req-0000700"]
    chosen = examples.choose(run.requests, values, findings)
    assert [c.request_id for c in chosen[:3]] == ["req-0000002", "req-0000700", "req-0000005"]
    assert chosen[0].checks == ("replica_skew",)
    assert len({c.request_id for c in chosen}) == len(chosen) <= examples.MOST_EXAMPLES


def test_failures_and_low_scores_are_shown_without_findings(run: Run) -> None:
    """Before analysis has run, every kind of failure and the lowest scores are still there."""
    values = agg.scored(run.requests, run.scores, "correct")
    chosen = examples.choose(run.requests, values, None)
    reasons = {choice.why for choice in chosen}
    assert {"failed, error: http_500", "failed, timeout: read_timeout", "scored 0.00"} <= reasons


def test_evidence_that_is_not_in_the_run_is_left_out(run: Run) -> None:
    """A finding of another run's request does not break the page."""
    findings = sample_findings()
    findings.findings[0].evidence = ["someone-elses"]
    assert "someone-elses" not in {
        c.request_id for c in examples.choose(run.requests, None, findings)
    }


def test_a_loaded_answer_stands_beside_the_idle_one_to_the_same_prompt(run: Run) -> None:
    """An idle row is held against another replica's idle answer."""
    requests = run.requests
    loaded = requests[(requests.role == "traffic") & (requests.outcome == "ok")].iloc[0]
    idle = requests[requests.role == "baseline"].iloc[0]
    choices = [examples.Choice(str(row.request_id), (), "") for row in (loaded, idle)]
    built = examples.build(choices, requests, run.scores, run.prompts)
    first, second = built["items"]
    assert loaded.prompt_id in "".join(text for _, text in first["idle"])
    assert second["idleFrom"] != second["replica_id"]
    assert set(built["prompts"]) == {loaded.prompt_id, idle.prompt_id}
    assert "fact" in built["prompts"][first["prompt"]]["reference"]


def test_the_budget_of_bytes_holds(run: Run) -> None:
    """Long answers do not make a large page: the examples that do not fit are counted."""
    requests = run.requests.head(300).copy()
    requests["output_text"] = "word " * 20_000
    choices = [examples.Choice(name, (), "") for name in requests.request_id]
    built = examples.build(choices, requests, run.scores, run.prompts, budget_bytes=100_000)
    assert len(json.dumps(built)) < 110_000
    assert built["left_out"] == 300 - len(built["items"]) > 0


def test_tool_calls_are_part_of_the_answer(run: Run) -> None:
    """A tool call without text is an answer."""
    requests = run.requests.head(1).copy()
    requests["output_text"] = None
    requests["tool_calls"] = '[{"name": "weather"}]'
    built = examples.build(
        [examples.Choice(str(requests.request_id.iloc[0]), (), "")], requests, None, None
    )
    assert built["items"][0]["answer"] == [["=", '[{"name": "weather"}]']]
