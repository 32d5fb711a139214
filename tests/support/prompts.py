"""Small prompt libraries for tests that need no golden set."""

from __future__ import annotations

from clustereval.core.prompts import Message, Prompt, PromptLibrary, Reference

FAMILIES = ("qa", "json", "tool_call", "instruction")


def tiny_library(count: int = 240) -> PromptLibrary:
    """``count`` short question-answering prompts over four families."""
    return PromptLibrary(
        Prompt(
            id=f"p{index:04d}",
            family=FAMILIES[index % len(FAMILIES)],
            messages=[Message(role="user", content=f"What is fact {index}?")],
            reference=Reference.model_validate({"answers": [f"fact {index}"]}),
        )
        for index in range(count)
    )
