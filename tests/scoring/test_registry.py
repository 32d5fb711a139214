"""Scorers of other packages, and rubrics that a scenario asks for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clustereval.core.errors import ClusterEvalError, ScenarioError
from clustereval.scoring.registry import load_scorers, require_applicable
from clustereval.scoring.scorers import BUILT_IN
from tests.support.prompts import tiny_library

GOOD = """
from clustereval.scoring import Example, Score, scorer

@scorer("polite", "3")
def polite(example: Example) -> Score:
    return Score(float("please" in example.output_text))
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Installs a package with one scorer entry point, as pip lays it out."""

    def place(code: str, value: str = "acme_scorers:polite") -> None:
        (tmp_path / "acme_scorers.py").write_text(code)
        info = tmp_path / "acme-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[clustereval.scorers]\npolite = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acme_scorers", raising=False)

    return place


def test_built_in_scorers_have_distinct_names() -> None:
    """Names are rubrics: no two built-in scorers share one, and each says what it does."""
    names = [scorer.name for scorer in BUILT_IN]
    assert len(set(names)) == len(names) == 13
    assert all(scorer.summary for scorer in BUILT_IN)


def test_an_installed_package_s_scorer_is_found(install) -> None:  # type: ignore[no-untyped-def]
    """An entry point in the group is loaded after the built-in scorers."""
    install(GOOD)
    last = load_scorers()[-1]
    assert (last.name, last.version) == ("polite", "3")


@pytest.mark.parametrize(
    ("code", "value", "said"),
    [
        ("import no_such_module", "acme_scorers:polite", "ModuleNotFoundError"),
        (GOOD, "acme_scorers:missing", "AttributeError"),
        ("1 / 0", "acme_scorers:polite", "ZeroDivisionError"),
        ("polite = len", "acme_scorers:polite", "found builtin_function_or_method"),
        (GOOD.replace('"polite"', '"correct"'), "acme_scorers:polite", "'correct' already"),
        (GOOD.replace('"3"', '"3", needs={"oracle"}'), "acme_scorers:polite", "needs oracle"),
    ],
)
def test_a_broken_entry_point_is_named(  # type: ignore[no-untyped-def]
    install, code: str, value: str, said: str
) -> None:
    """Whatever is wrong with it, the error names the entry point, its package and the reason."""
    install(code, value)
    with pytest.raises(ClusterEvalError, match=said) as caught:
        load_scorers()
    assert f"scorer polite = {value} of acme" in str(caught.value)


def test_rubrics_that_cannot_be_given_are_refused() -> None:
    """A misspelt rubric, one without references, and one without a baseline are bad input."""
    library = tiny_library(8)
    require_applicable(["correct", "truncation"], library, BUILT_IN, has_baseline=False)
    require_applicable(["fidelity"], library, BUILT_IN, has_baseline=True)
    with pytest.raises(ScenarioError, match="did you mean 'correct'"):
        require_applicable(["corect"], library, BUILT_IN, has_baseline=True)
    with pytest.raises(ScenarioError, match="reference has json_schema"):
        require_applicable(["json_schema"], library, BUILT_IN, has_baseline=True)
    with pytest.raises(ScenarioError, match="role: baseline"):
        require_applicable(["fidelity"], library, BUILT_IN, has_baseline=False)
