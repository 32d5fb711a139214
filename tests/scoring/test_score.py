"""Scoring a whole run: states, idle answers, and the table that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.columns import SCORES
from clustereval.core.errors import RunFolderError
from clustereval.core.prompts import Message, Prompt, PromptLibrary, Reference
from clustereval.rundir import Run
from clustereval.scoring import Example, Score, Scorer, scorer
from clustereval.scoring.score import score_requests, score_run
from clustereval.scoring.scorers import BUILT_IN
from tests.support.prompts import tiny_library
from tests.support.synthetic import synthetic_run

BY_NAME = {item.name: item for item in BUILT_IN}


def library(**reference: Any) -> PromptLibrary:
    return PromptLibrary(
        Prompt(
            id=name,
            family="qa",
            messages=[Message(role="user", content="?")],
            reference=Reference.model_validate(reference or {"answers": ["Paris"]}),
        )
        for name in ("a", "b")
    )


def requests(*rows: dict[str, Any]) -> pd.DataFrame:
    base = {
        "prompt_id": "a",
        "role": "traffic",
        "outcome": "ok",
        "error_type": None,
        "finish_reason": "stop",
        "output_text": "Paris",
        "tool_calls": None,
    }
    return pd.DataFrame(
        [{"request_id": f"r{number}", **base, **row} for number, row in enumerate(rows)]
    )


def score(rows: pd.DataFrame, *names: str, prompts: PromptLibrary | None = None) -> pd.DataFrame:
    frame = score_requests(rows, prompts or library(), [BY_NAME[name] for name in names])
    return frame.set_index("request_id")


def test_an_answer_whose_client_was_to_hang_up_is_not_scored() -> None:
    """No row at all, whether it was cut or was faster: it failed nothing, and proves nothing."""
    rows = requests({"cancel_after_s": 1.0, "output_text": "Par"}, {"cancel_after_s": 1.0}, {})
    assert score(rows, "correct").index.tolist() == ["r2"]


def test_an_adapter_is_compared_with_its_own_idle_answers() -> None:
    """Another model's answer to the same prompt says nothing of it."""
    rows = requests(
        {"role": "baseline", "output_text": "Paris"},
        {"role": "baseline", "output_text": "Lyon", "model": "m:a"},
        {"output_text": "Lyon", "model": "m:a"},
        {"output_text": "Lyon"},
        {"output_text": "Lyon", "model": "m:b"},
    )
    found = score(rows, "fidelity")
    assert found.loc[["r2", "r3"]].value.tolist() == [1.0, 0.0]
    assert "r4" not in found.index, "no idle answer of that adapter"


def test_a_turn_after_the_model_s_own_answers_has_no_idle_answer() -> None:
    """Its input is not the prompt's; what is right is, so it is scored all the same."""
    rows = requests({"role": "baseline"}, {"history": "answers", "output_text": "Lyon"})
    assert score(rows, "fidelity").index.tolist() == []
    assert score(rows, "correct").value.tolist() == [1.0, 0.0]


def test_requests_without_a_whole_answer_are_unscored() -> None:
    """Error, time-out, drop and a stream that was cut are unscored, and say which they are."""
    rows = requests(
        {"outcome": "error", "error_type": "http_503", "output_text": None},
        {"outcome": "timeout", "output_text": None},
        {"outcome": "dropped", "output_text": None},
        {"outcome": "error", "error_type": "stream_cut", "output_text": "Paris"},
        {},
    )
    found = score(rows, "correct")
    assert list(found.status) == ["unscored"] * 4 + ["scored"]
    assert list(found.reason[:4]) == ["error: http_503", "timeout", "dropped", "error: stream_cut"]
    assert found.value.isna().tolist() == [True] * 4 + [False]


def test_an_answer_without_text_is_an_empty_answer() -> None:
    """A whole answer with no text and no call is judged, and wrong."""
    found = score(requests({"output_text": None}), "correct", "degeneration")
    assert list(found.status) == ["scored", "scored"]
    assert list(found.value) == [0.0, 0.0]


def test_a_scorer_that_does_not_apply_gives_no_row() -> None:
    """Prompts without JSON in their reference have no row of the JSON scorers."""
    assert score(requests({}), "json_value", "json_schema", "tool_call_strict").empty


def test_a_scorer_that_raises_has_failed_and_costs_no_other() -> None:
    """The row is ``failed`` with the error as its reason; the other scorers' rows stand."""

    @scorer("broken", "1")
    def broken(example: Example) -> Score:
        raise KeyError("gone")

    @scorer("loud", "1")
    def loud(example: Example) -> Score:
        return Score(1.5)

    @scorer("odd", "1")
    def odd(example: Example) -> Score:
        return 1.0  # type: ignore[return-value]

    frame = score_requests(requests({}), library(), [broken, loud, odd, BY_NAME["correct"]])
    found = frame.set_index("scorer")
    assert list(found.status) == ["failed", "failed", "failed", "scored"]
    assert found.reason["broken"] == "KeyError: 'gone'"
    assert "1.5" in found.reason["loud"]
    assert "float, not a Score" in found.reason["odd"]
    assert found.value[:3].isna().all()


def test_nan_is_no_score() -> None:
    """A scorer that gives NaN has failed: there is no such value between 0 and 1."""
    nan = Scorer("nan", "1", lambda example: Score(float("nan")))
    assert list(score_requests(requests({}), library(), [nan]).status) == ["failed"]


def test_fidelity_leaves_a_baseline_row_s_own_answer_out() -> None:
    """Traffic is compared with every idle answer, a baseline row with the others."""
    rows = requests(
        {"role": "baseline"},
        {"role": "baseline"},
        {"role": "baseline", "output_text": "Rome"},
        {},
        {"output_text": "Rome"},
        {"output_text": "Oslo"},
        {"role": "warmup"},
    )
    found = score(rows, "fidelity").value
    assert list(found) == pytest.approx([1 / 2, 1 / 2, 0, 2 / 3, 1 / 3, 0, 2 / 3])


def test_fidelity_without_a_baseline_gives_no_row() -> None:
    """No baseline, or a baseline row that is alone: the scorer does not apply."""
    assert score(requests({}, {}), "fidelity").empty
    assert score(requests({"role": "baseline"}), "fidelity").empty
    other = requests({"role": "baseline", "prompt_id": "b"}, {})
    assert score(other, "fidelity").empty


def test_fidelity_is_unscored_where_the_baseline_s_answers_are_missing() -> None:
    """A prompt that was asked at idle and not answered leaves its rows unscored, not unseen."""
    rows = requests({"role": "baseline", "outcome": "timeout", "output_text": None}, {})
    found = score(rows, "fidelity")
    assert list(found.status) == ["unscored"]
    assert "no other idle answer" in found.reason["r1"]


def test_no_requests_give_an_empty_table() -> None:
    """A run that sent nothing has a scores table with its columns and no row."""
    empty = requests({}).iloc[:0]
    found = score_requests(empty, library(), BUILT_IN)
    assert list(found.columns) == SCORES.names
    assert found.empty
    assert SCORES.conform(found).num_rows == 0


def test_a_prompt_that_is_not_there_is_said() -> None:
    """A request whose prompt the run's file lacks is an error that names the prompt."""
    with pytest.raises(RunFolderError, match="'lost'"):
        score(requests({"prompt_id": "lost"}), "correct")


def test_damaged_tool_calls_are_said() -> None:
    """Tool calls that are no JSON list of name and arguments are a damaged file."""
    with pytest.raises(RunFolderError, match="tool_calls"):
        score(requests({"tool_calls": "[{"}), "correct")


def test_a_run_s_scores_are_written_and_written_anew(tmp_path: Path) -> None:
    """score_run writes what score_requests gives, and another call replaces it."""
    run = synthetic_run(tmp_path / "run", prompts=tiny_library(), rows=400)
    before = run.scores
    assert set(before.scorer) == {"correct", "degeneration"}
    frame = score_run(run)
    again = Run.open(tmp_path / "run").scores
    assert list(again.scorer.unique()) == list(dict.fromkeys(frame.scorer))
    assert run.scores.shape == again.shape == frame.shape
    pd.testing.assert_series_equal(again.value, frame.value, check_names=False)
    answered = int((run.requests.outcome == "ok").sum())
    correct = again[again.scorer == "correct"]
    assert int((correct.status == "scored").sum()) == answered
    score_run(run, [BY_NAME["truncation"]])
    assert set(run.scores.scorer) == {"truncation"}


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt_id": st.sampled_from(["a", "b"]),
            "role": st.sampled_from(["warmup", "baseline", "traffic"]),
            "outcome": st.sampled_from(["ok", "ok", "error", "timeout", "dropped"]),
            "output_text": st.sampled_from(["Paris", "Rome", None]),
            "finish_reason": st.sampled_from(["stop", "length", None]),
        }
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_judging_each_kind_once_changes_nothing(rows: list[dict[str, Any]]) -> None:
    """Every row gets the score that it would get if each row were judged by itself."""
    frame = requests(*rows)
    chosen = [BY_NAME[name] for name in ("correct", "truncation", "fidelity")]
    found = score_requests(frame, library(), chosen)
    assert not found.duplicated(["request_id", "scorer"]).any()
    by_row = found.set_index(["scorer", "request_id"])
    for row in frame.itertuples():
        whole = row.outcome == "ok"
        status = by_row.status["correct", row.request_id]
        assert status == ("scored" if whole else "unscored")
        if not whole:
            continue
        assert by_row.value["correct", row.request_id] == float(row.output_text == "Paris")
        idle = frame[
            (frame.role == "baseline")
            & (frame.prompt_id == row.prompt_id)
            & (frame.request_id != row.request_id)
        ]
        key = ("fidelity", row.request_id)
        assert (key in by_row.index) == (len(idle) > 0)
        texts = list(idle[idle.outcome == "ok"].output_text.fillna(""))
        if texts:
            own = row.output_text if isinstance(row.output_text, str) else ""
            expected = np.mean([text == own for text in texts])
            assert by_row.value[key] == pytest.approx(expected)


def test_many_requests_keep_their_own_scores() -> None:
    """Answers that repeat are scored once, and each of 20,000 rows still gets its own score."""
    prompts = PromptLibrary(
        Prompt(
            id=f"p{index}",
            family="json",
            messages=[Message(role="user", content="?")],
            reference=Reference.model_validate(
                {
                    "json_value": {"n": index},
                    "json_schema": {"type": "object", "required": ["n"]},
                    "answers": [json.dumps({"n": index})],
                    "context": f"n is {index}",
                    "instructions": [{"kind": "exact_lines", "value": 1}],
                }
            ),
        )
        for index in range(250)
    )
    rng = np.random.default_rng(0)
    index, wrong = rng.integers(0, 250, 20_000), rng.integers(0, 20, 20_000)
    frame = requests({}).loc[np.zeros(20_000, dtype=int)].reset_index(drop=True)
    frame["request_id"] = [f"r{number}" for number in range(20_000)]
    frame["prompt_id"] = [f"p{number}" for number in index]
    frame["output_text"] = [
        json.dumps({"n": int(i + (w == 0) * (1 + i % 9))})
        for i, w in zip(index, wrong, strict=True)
    ]
    frame["role"] = np.where(np.arange(20_000) < 2000, "baseline", "traffic")
    found = score_requests(frame, prompts, BUILT_IN)
    assert len(found) > 160_000
    assert found[found.scorer == "correct"].value.mean() == pytest.approx(0.95, abs=0.01)
