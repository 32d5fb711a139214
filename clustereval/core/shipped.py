"""Where the files that ship with clustereval are: in a clone, and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from clustereval.core.errors import ClusterEvalError


def scenarios_dir() -> Path:
    """The folder with the shipped scenarios, their prompts and ``locustfile.py``.

    Raises:
        ClusterEvalError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "_shipped" / "scenarios", package.parent / "scenarios")
    for place in places:
        if (place / "locustfile.py").is_file():
            return place
    raise ClusterEvalError(
        f"the shipped scenarios are missing: looked in {places[0]} and {places[1]}",
        expected="an installed wheel, or a whole clone",
        change="install clustereval again",
    )
