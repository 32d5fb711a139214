"""Which requests asked the same."""

from __future__ import annotations

import pandas as pd

from clustereval.core.inputs import same_input, to_be_cancelled


def test_a_prompt_is_its_own_name_where_nothing_else_differs() -> None:
    """Without models and own answers, and in runs made before these were, inputs are prompts."""
    old = pd.DataFrame({"prompt_id": ["a", "b", "a"]})
    assert same_input(old).tolist() == ["a", "b", "a"]
    assert same_input(old.assign(model=None, history=None)).tolist() == ["a", "b", "a"]
    assert to_be_cancelled(old).tolist() == [False, False, False]


def test_another_model_or_another_history_is_another_input() -> None:
    """A prompt asked of an adapter, or after the model's own answers, is not the prompt."""
    rows = pd.DataFrame(
        {
            "prompt_id": ["a", "a", "a", "a", "a"],
            "model": [None, "m:x", "m:x", "m:y", None],
            "history": [None, None, None, None, "answers"],
        }
    )
    keys = same_input(rows).tolist()
    assert keys[1] == keys[2]
    assert len(set(keys)) == 4
