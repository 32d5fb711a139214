"""SCENARIO on the command line: a file, or the name of a shipped one."""

from __future__ import annotations

from pathlib import Path

from clustereval.core.errors import ScenarioError
from clustereval.core.shipped import scenarios_dir


def find_scenario(name: str) -> Path:
    """The scenario file that ``name`` means.

    Raises:
        ScenarioError: neither a file nor a shipped scenario; lists the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(scenarios_dir().glob("*.yaml"))}
    # `scenarios/burst.yaml` means the shipped one where there is no such file: the README's
    # commands then work from any folder.
    if path.stem in shipped and str(path) in (path.stem, f"scenarios/{path.stem}.yaml"):
        return shipped[path.stem]
    raise ScenarioError(
        f"{name}: no such scenario file",
        expected=f"a file, or one of the shipped scenarios: {', '.join(shipped)}",
    )
