"""Documents that repeat a declaration are generated from it, and current."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustereval.core.errors import ExitCode
from docs.generate import ROOT, documents


@pytest.mark.parametrize("path", sorted(documents()), ids=lambda path: path.name)
def test_generated_documents_are_current(path: Path) -> None:
    """A generated file holds what the code declares; `make docs` writes it anew."""
    assert path.read_text(encoding="utf-8") == documents()[path]


def test_every_exit_code_is_documented() -> None:
    """reports/README.md has a row for each exit code."""
    text = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {int(code)} |" in text
