"""Where the files that ship beside the code are, in a clone and in an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RECORDS_FILE: Final = "records.jsonl"
COUNTS_FILE: Final = "counts.jsonl"
FOR_SMALL_MODEL: Final = (RECORDS_FILE, COUNTS_FILE)
"""Shipped prompts that the small model of the vLLM app knows."""
CHATS_FILE: Final = "chats.jsonl"
"""Shipped conversations: apart from the golden set, as those for the small model are."""


def scenarios_dir() -> Path:
    """The folder of the shipped scenarios, prompts and the locustfile."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / "scenarios"
    return installed if installed.is_dir() else package.parent / "scenarios"


def answerable_prompt_files() -> list[Path]:
    """The shipped prompts that are not for the small model: what the simulated app can answer."""
    files = sorted((scenarios_dir() / "prompts").glob("*.jsonl"))
    return [path for path in files if path.name not in FOR_SMALL_MODEL]


def golden_prompt_files() -> list[Path]:
    """The golden set that ships with the scenarios."""
    return [path for path in answerable_prompt_files() if path.name != CHATS_FILE]
