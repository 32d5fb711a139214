"""The right answer to a prompt, made from its reference: what a faultless model would say."""

from __future__ import annotations

import json
from typing import Any

from clustereval.core.prompts import Prompt


def ideal_answer(prompt: Prompt) -> tuple[str, list[dict[str, Any]]]:
    """``(text, tool calls)`` that every applicable scorer gives 1.

    Raises:
        ValueError: the reference states no answer that could be given.
    """
    reference = prompt.reference
    if reference.tool_call is not None:
        arguments = {
            name: accepted[0]
            for name, accepted in reference.tool_call.arguments.items()
            if "" not in accepted
        }
        call = {"name": reference.tool_call.name, "arguments": json.dumps(arguments)}
        return "", [call]
    if reference.json_value is not None:
        return json.dumps(reference.json_value), []
    if reference.text is not None:
        return reference.text, []
    if reference.answers:
        return reference.answers[0], []
    raise ValueError(f"{prompt.id}: the reference states no answer")
