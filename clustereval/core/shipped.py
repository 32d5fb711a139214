"""Where the files that ship beside the code are, in a clone and in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def scenarios_dir() -> Path:
    """The folder of the shipped scenarios, prompts and the locustfile."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / "scenarios"
    return installed if installed.is_dir() else package.parent / "scenarios"
