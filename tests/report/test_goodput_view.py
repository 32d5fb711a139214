"""The goodput on the page and in the terminal, and what is said of warm-up and hand-over."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from clustereval.analysis.goodput import goodput
from clustereval.core.findings import Findings
from clustereval.core.goodput import ColdStart, Goodput, Warmup
from clustereval.report.goodput_view import goodput_chart, headline
from clustereval.report.html import write_report
from clustereval.report.text import render_summary
from clustereval.report.warmup_view import warmup_view
from clustereval.rundir import REPORT
from tests.analysis.ladders import Ladder, Step
from tests.report.browser import chromium, console, show
from tests.report.samples import lively_run, sample_findings


def climbed(*steps: Step, **ladder: object) -> Goodput:
    found = goodput(Ladder(steps, **ladder).frames())  # type: ignore[arg-type]
    assert found is not None
    return found


WARM = Warmup(
    sentences=["4 requests met a cold replica (4 in bursts)"],
    enough=True,
    cold=[
        ColdStart(
            replica_id="<b>r2</b>", n=4, from_s=12.0, until_s=14.5, slowest_s=2.1, usual_s=0.03,
            phases={"bursts": 4},
        )
    ],
)  # fmt: skip


def test_the_headline_is_the_goodput_of_the_highest_step_that_holds() -> None:
    """A number, its interval, and the sentence."""
    result = climbed(Step(10), Step(20), Step(30, late=0.4))
    line = headline(result)
    assert line is not None
    assert line.known
    assert line.number == f"{result.highest[0].good_per_s:.1f}"
    assert line.words == "good requests/s at the highest step that holds"
    assert "not to at 30 requests/s" in line.sentence


def test_a_ladder_that_was_too_short_reads_at_least() -> None:
    """Where the last step held, the number is a lower limit and says so."""
    line = headline(climbed(Step(10), Step(20)))
    assert line is not None
    assert line.number.startswith("≥ ")


def test_a_goodput_that_cannot_be_told_is_no_number() -> None:
    """Where nothing holds, or something is missing, there is a dash and the reason."""
    for result in (climbed(Step(20, late=0.5)), climbed(Step(20), slo={"score": 0.8})):
        line = headline(result)
        assert line is not None
        assert (line.known, line.number) == (False, "–")
        assert line.sentence
    assert headline(None) is None


def test_every_step_is_drawn_and_tabled_by_its_status() -> None:
    """Marks of each status present, with intervals, and a row for every step."""
    chart = goodput_chart(climbed(Step(10), Step(20), Step(30, late=0.4)))
    assert chart is not None
    assert chart.figure is not None
    names = {trace["name"]: trace for trace in chart.figure["data"] if "name" in trace}
    assert {name: len(trace["x"]) for name, trace in names.items()} == {
        "holds": 2,
        "does not hold": 1,
    }
    assert all(min(trace["error_y"]["arrayminus"]) > 0 for trace in names.values())
    assert chart.table is not None
    assert [row[0] for row in chart.table.rows] == [f"climb, step {k}" for k in (1, 2, 3)]
    assert chart.table.rows[2][-2] == "does not hold"


def test_the_page_leads_with_it(tmp_path: Path) -> None:
    """The first screen has the number; the section the figure; hostile names stay text."""
    run = lively_run(tmp_path / "run", rows=600)
    update = {"goodput": climbed(Step(10), Step(20)), "warmup": WARM}
    run.write_findings(sample_findings().model_copy(update=update))
    write_report(run)
    page = run.path(REPORT).read_text(encoding="utf-8")
    assert page.index('class="headline"') < page.index('id="checks"')
    assert 'data-figure="goodput"' in page
    assert "Warm-up and hand-over" in page
    assert "&lt;b&gt;r2&lt;/b&gt;" in page
    assert "<b>r2</b>" not in page


def test_findings_of_an_older_version_have_neither(tmp_path: Path) -> None:
    """A page can be made of findings without them."""
    run = lively_run(tmp_path / "run", rows=600)
    run.write_findings(sample_findings())
    write_report(run)
    page = run.path(REPORT).read_text(encoding="utf-8")
    assert 'class="headline' not in page
    assert 'href="#goodput"' not in page
    assert warmup_view(None) is None


def test_a_warm_service_says_that_nothing_was_found() -> None:
    """No mark is a statement of its own; what cannot be told is none."""
    view = warmup_view(Warmup(sentences=[], enough=True))
    assert view is not None
    assert view.sentences == [
        "No request met a cold replica, and no phase met what an earlier one left over",
        "The baseline met a warm and idle service",
    ]
    unsure = warmup_view(Warmup(sentences=[], enough=None))
    assert unsure is not None
    assert "cannot be told" in unsure.sentences[-1]


def test_the_terminal_says_it_below_the_verdict(tmp_path: Path) -> None:
    """One line for the goodput, one for each thing to know of the warm-up."""
    run = lively_run(tmp_path / "run", rows=600)
    update = {"goodput": climbed(Step(10), Step(20, late=0.5)), "warmup": WARM}
    findings: Findings = sample_findings().model_copy(update=update)
    out = StringIO()
    render_summary(findings, run.manifest, Console(file=out, width=200))
    text = out.getvalue()
    assert "Goodput  phase climb: SLO and quality floor hold up to 10 requests/s" in text
    assert "4 requests met a cold replica (4 in bursts)" in text


@pytest.mark.browser
def test_the_figure_is_drawn_light_and_dark_and_narrow(tmp_path: Path) -> None:
    """Every step has its mark, nothing is written to the console, and nothing scrolls sideways."""
    run = lively_run(tmp_path / "run", rows=600)
    result = climbed(Step(10), Step(20), Step(30, late=0.4))
    run.write_findings(sample_findings().model_copy(update={"goodput": result, "warmup": WARM}))
    write_report(run)
    with chromium() as driver:
        for width, dark in ((1280, False), (1280, True), (360, False)):
            show(driver, run.path(REPORT), width=width, dark=dark)
            marks = driver.find_elements("css selector", "#chart-goodput .scatterlayer .point")
            assert len(marks) == 3
            assert driver.execute_script("return document.documentElement.scrollWidth") == width
        assert console(driver) == []
