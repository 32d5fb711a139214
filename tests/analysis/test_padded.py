"""A padded prompt is another input: paired with its own kind only, and clustered by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from clustereval.analysis.contrasts import score_drop
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.slices import Frames, build_frames
from clustereval.core.columns import REQUESTS, SCORES
from clustereval.core.findings import WarningCode
from clustereval.core.inputs import same_input
from clustereval.scoring.score import score_requests
from clustereval.scoring.scorers.fidelity import fidelity
from tests.support.prompts import tiny_library
from tests.support.synthetic import scenario

PROMPTS = 60


def frames_of(
    idle: Sequence[str | None], loaded: Sequence[str | None], right: float = 1.0
) -> Frames:
    """Every prompt once for each content given: ``None`` as it stands, else padded so.

    Idle answers are all right, loaded ones with the share ``right`` of the prompts.
    """
    names = [prompt.id for prompt in tiny_library(PROMPTS)]
    rows = [
        {"role": role, "prompt_id": name, "content_id": kind and f"{name}~{kind}", "place": place}
        for role, kinds in (("baseline", idle), ("traffic", loaded))
        for kind in kinds
        for place, name in enumerate(names)
    ]
    frame = pd.DataFrame(rows)
    good = (frame.role == "baseline") | (
        7 * frame.pop("place") % PROMPTS < right * PROMPTS  # alike in every load window
    )
    frame = frame.assign(
        request_id=[f"r{n}" for n in range(len(frame))],
        due_s=1.0 * np.arange(len(frame)),
        phase=frame.role,
        tenant="acme",
        family="qa",
        outcome="ok",
        output_text="fact",
    )
    scores = pd.DataFrame(
        {"request_id": frame.request_id, "scorer": "correct", "version": "1", "status": "scored"}
    ).assign(value=good.astype(float))
    return build_frames(
        REQUESTS.to_pandas(REQUESTS.conform(frame)),
        SCORES.to_pandas(SCORES.conform(scores)),
        None,
        scenario(),
    )


def drop(frames: Frames) -> Estimate:
    return score_drop(frames, frames.rubrics["correct"], frames.traffic, frames.baseline, by="role")


def test_padded_answers_are_not_compared_with_plain_ones() -> None:
    """What a prompt loses by being padded is no effect of the load: nothing is concluded."""
    found = drop(frames_of([None], ["a"], right=0.5))
    assert found.bounds is None
    assert WarningCode.UNPAIRED in {warning.code for warning in found.warnings}


def test_padded_answers_are_paired_with_idle_ones_of_the_same_padding() -> None:
    """The idle replay of the same part gives pairs, beside those of plain prompts."""
    found = drop(frames_of([None, "a"], [None, "a"], right=0.5))
    assert found.value == pytest.approx(0.5)
    assert found.n == 4 * PROMPTS
    assert found.bounds is not None


def test_paddings_of_one_prompt_are_one_cluster() -> None:
    """Four paddings of a prompt are four pairs, but no more prompts: the interval stays as wide."""
    once = drop(frames_of(["a"], ["a"], right=0.5))
    often = drop(frames_of(["a", "b", "c", "d"], ["a", "b", "c", "d"], right=0.5))
    assert once.clusters == often.clusters == PROMPTS
    assert once.bounds is not None
    assert often.bounds is not None
    widths = [high - low for low, high in (e.bounds(0.025) for e in (once, often))]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_padded_answers_of_two_loads_are_compared_by_strata() -> None:
    """Without pairs, padded is compared with padded: no plain answer gets among them."""
    frames = frames_of(["b", None], ["a"], right=0.5)
    found = drop(frames)
    assert found.n == 2 * PROMPTS
    assert found.value == pytest.approx(0.5)


def test_runs_from_before_padding_are_paired_by_prompt() -> None:
    """A table without the column is read as it always was."""
    frame = pd.DataFrame({"prompt_id": ["a", "b"]})
    assert same_input(frame).tolist() == ["a", "b"]
    padded = frame.assign(content_id=pd.array([pd.NA, "b~1"], dtype="string"))
    assert same_input(padded).tolist() == ["a", "b~1"]


def test_fidelity_is_of_the_same_padding() -> None:
    """An idle answer to the plain prompt says nothing of the answer to the padded one."""
    rows = pd.DataFrame(
        {
            "request_id": ["idle", "idle-padded", "loaded", "loaded-padded", "other-padded"],
            "prompt_id": "p0000",
            "content_id": pd.array([pd.NA, "p~1", pd.NA, "p~1", "p~2"], dtype="string"),
            "role": ["baseline", "baseline", "traffic", "traffic", "traffic"],
            "outcome": "ok",
            "error_type": None,
            "finish_reason": "stop",
            "output_text": ["plain", "padded", "plain", "padded", "plain"],
            "tool_calls": None,
        }
    )
    scores = score_requests(rows, tiny_library(1), [fidelity]).set_index("request_id")
    assert scores.value.to_dict() == {"loaded": 1.0, "loaded-padded": 1.0}
