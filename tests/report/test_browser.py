"""The page in a real Chromium: what it shows, what it runs, and what it never does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from clustereval.core.columns import CLUSTER, REQUESTS, SCORES
from clustereval.core.findings import Findings
from clustereval.report.html import write_report
from clustereval.rundir import PROMPTS, Run
from tests.report.browser import chromium, console, requested, show
from tests.report.samples import lively_run, sample_findings

pytestmark = pytest.mark.browser

# Each would set window.pwned, move the page, or show a link if it were anything but text.
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "</script><img src=x onerror='window.pwned=3'>",
    "<svg onload=window.pwned=4><a href='javascript:window.pwned=5'>click</a>",
    "javascript:window.pwned=6",
    "{{ 7 * 7 }} {% raw %} ${window.pwned=8} `${window.pwned=9}`",
    "<!-- <script> -->",
    "<b>bold</b> <a href='https://evil.example/'>link</a>",
    "\u202eright-to-left\u2028\u2029 \x1b[31mred\x00",
    "'\"><details open ontoggle=window.pwned=10>",
    "<style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
)


def hostile(index: int) -> str:
    return HOSTILE[index % len(HOSTILE)]


def poison(run: Run) -> Findings:
    """Hostile text wherever a model, a server, a prompt or a user can put some."""
    frame = run.requests
    everywhere = " ".join(HOSTILE)
    frame["output_text"] = [hostile(i) + everywhere for i in range(len(frame))]
    frame["tool_calls"] = everywhere
    frame["error_detail"] = everywhere
    frame["finish_reason"] = HOSTILE[0]
    frame["node_id"] = HOSTILE[2]
    frame["replica_id"] = frame.replica_id.map({f"r{i}": HOSTILE[i] for i in range(3)})
    frame["phase"] = frame.phase + HOSTILE[3]
    frame["tenant"] = frame.tenant + HOSTILE[9]
    names = {name: f"{name}{hostile(i)}" for i, name in enumerate(frame.request_id.head(40))}
    frame["request_id"] = frame.request_id.replace(names)
    run.write_table(REQUESTS, frame)
    scores = run.scores
    scores["request_id"] = scores.request_id.replace(names)
    scores["scorer"] = scores.scorer + HOSTILE[7]
    scores["reason"] = everywhere
    scores["version"] = HOSTILE[10]
    run.write_table(SCORES, scores)
    lines = run.path(PROMPTS).read_text(encoding="utf-8").replace("What is", "<script>")
    run.path(PROMPTS).write_text(lines, encoding="utf-8")
    findings = sample_findings()
    findings.verdict.sentence = everywhere
    findings.verdict.because = list(HOSTILE)
    for check in findings.checks:
        check.sentence = everywhere
    for i, finding in enumerate(findings.findings):
        finding.metric = finding.effect = finding.sentence = finding.remedy = everywhere
        finding.slice = {"replica_id": hostile(i)}
        finding.evidence = list(frame.request_id.head(12))
    findings.context = {"note": everywhere, HOSTILE[1]: 1}
    run.update_manifest(
        command=["clustereval", *HOSTILE],
        versions={HOSTILE[1]: HOSTILE[2]},
        observation={HOSTILE[1]: list(HOSTILE)},
        load={"engine": everywhere},
        target=run.manifest.target.model_copy(update={"model": HOSTILE[1], "app": everywhere}),
    )
    return findings


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = lively_run(tmp_path_factory.mktemp("browser") / "run", rows=1500, error_ratio=0.01)
    run.write_findings(sample_findings())
    return write_report(run)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = lively_run(tmp_path_factory.mktemp("poisoned") / "run", rows=600, error_ratio=0.02)
    run.write_findings(poison(run))
    return write_report(Run.open(run.folder))


def ask(driver: webdriver.Chrome, script: str) -> Any:
    return driver.execute_script(f"return {script}")  # type: ignore[no-untyped-call]


def test_the_page_draws_without_errors_or_network(browser: webdriver.Chrome, page: Path) -> None:
    """Every figure is drawn; the console stays empty; only the file itself is loaded."""
    show(browser, page)
    console(browser)
    requested(browser)
    browser.refresh()
    show(browser, page)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")) == 6
    assert console(browser) == []
    assert {url.split("#")[0].split(",")[0] for url in requested(browser)} <= {
        page.as_uri(), "about:blank", "data:image/gif;base64",
    }  # fmt: skip


def test_the_verdict_and_every_check_are_on_the_first_screen(
    browser: webdriver.Chrome, page: Path
) -> None:
    """At 1280×800 nothing of the verdict, the checks or the run's line needs scrolling."""
    show(browser, page)
    for selector in (".verdict", ".checks", ".facts"):
        box = browser.find_element(By.CSS_SELECTOR, selector).rect
        assert box["y"] + box["height"] <= 800


def test_hostile_text_runs_nothing_and_breaks_nothing(
    browser: webdriver.Chrome, poisoned: Path
) -> None:
    """Script-laden answers, names and sentences are shown as text on every part of the page."""
    show(browser, poisoned)
    console(browser)
    show(browser, poisoned)
    for index in range(25):
        browser.execute_script(  # type: ignore[no-untyped-call]
            "document.querySelectorAll('#list button')[arguments[0]].click()", index
        )
    for details in browser.find_elements(By.CSS_SELECTOR, "details"):
        browser.execute_script("arguments[0].open = true", details)  # type: ignore[no-untyped-call]
    time.sleep(0.3)
    assert ask(browser, "window.pwned") is None
    assert browser.current_url.startswith(poisoned.as_uri())
    assert console(browser) == []
    assert len(browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot")) == 6
    links = ask(browser, "[...document.querySelectorAll('a')].map(a => a.getAttribute('href')"
                " ?? a.getAttributeNS('http://www.w3.org/1999/xlink', 'href') ?? '')")  # fmt: skip
    assert all(link.startswith("#") for link in links)
    strangers = ask(
        browser, "document.querySelectorAll('img, iframe, object, #detail script, #detail a, "
        "main script, main style').length",
    )  # fmt: skip
    assert strangers == 0
    assert HOSTILE[0] in browser.find_element(By.ID, "verdict").text
    text = ask(browser, "document.body.innerText")
    assert not {"\u202e", "\u2028", "\x1b"} & set(text)


def test_a_script_that_is_not_the_pages_own_is_refused(
    browser: webdriver.Chrome, page: Path, tmp_path: Path
) -> None:
    """The policy works: the second lock would hold if the first one failed."""
    changed = tmp_path / "changed.html"
    html = page.read_text(encoding="utf-8")
    changed.write_text(
        html.replace("</main>", "<script>window.pwned = 1</script><img src='https://evil.example/'>"
                     "</main>"),
        encoding="utf-8",
    )  # fmt: skip
    show(browser, changed)
    assert ask(browser, "window.pwned") is None
    assert sum("Content Security Policy" in line for line in console(browser)) >= 2


@pytest.mark.parametrize("width", [360, 390, 768, 1080, 1280, 1920])
@pytest.mark.parametrize("which", ["page", "poisoned"])
def test_no_width_scrolls_sideways(
    browser: webdriver.Chrome, which: str, width: int, request: pytest.FixtureRequest
) -> None:
    """Wide tables scroll inside themselves; the page never does."""
    show(browser, request.getfixturevalue(which), width=width)
    assert ask(browser, "document.documentElement.scrollWidth") <= width


def test_the_theme_follows_the_system_and_the_switch(browser: webdriver.Chrome, page: Path) -> None:
    """Dark with a dark system, light again by the switch, figures and surface alike."""
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('#chart-timeline .annotation-text').style.fill"
    show(browser, page, dark=True)
    dark = (ask(browser, background), ask(browser, ink))
    light_button = browser.find_element(By.CSS_SELECTOR, ".theme input[value=light]")
    light_button.click()
    time.sleep(0.5)
    light = (ask(browser, background), ask(browser, ink))
    assert dark[0] == "rgb(16, 19, 22)"
    assert light[0] == "rgb(251, 251, 250)"
    assert dark[1] != light[1]
    browser.find_element(By.CSS_SELECTOR, ".theme input[value=auto]").click()


def test_text_has_enough_contrast_in_both_themes(browser: webdriver.Chrome, page: Path) -> None:
    """Every token that colours text reaches 4.5:1 on the page and on its surfaces (WCAG AA)."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for dark in (False, True):
        show(browser, page, dark=dark)
        token = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
        grounds = [ask(browser, token.format(name)) for name in ("page", "surface", "soft")]
        for name in ("ink", "muted", "accent", "pass", "fail", "maybe"):
            color = ask(browser, token.format(name))
            for ground in grounds:
                full = [c if len(c) == 7 else "#" + "".join(2 * x for x in c[1:])
                        for c in (color, ground)]  # fmt: skip
                high, low = sorted((luminance(c) for c in full), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, color, ground)


def test_a_deep_link_opens_its_answer(browser: webdriver.Chrome, page: Path) -> None:
    """A colleague lands on the same request; an unknown one is said to be elsewhere."""
    show(browser, page, fragment="#request=req-0000005")
    detail = browser.find_element(By.ID, "detail")
    assert "req-0000005" in detail.text
    current = browser.find_element(By.CSS_SELECTOR, "#list [aria-current=true]")
    assert "req-0000005" in current.text
    assert ask(browser, "document.activeElement.id") == "detail"
    assert detail.rect["y"] - ask(browser, "scrollY") < 800
    show(browser, page, fragment="#request=req-none")
    assert "is not among the answers" in browser.find_element(By.ID, "detail").text
    show(browser, page, fragment="#request=%E0%A4%A")
    assert console(browser) == []


def test_evidence_of_a_check_leads_to_the_answer(browser: webdriver.Chrome, page: Path) -> None:
    """From the failed check's row, by keyboard alone, to the worst request."""
    show(browser, page)
    summary = browser.find_element(By.CSS_SELECTOR, "#check-replica_skew > summary")
    summary.send_keys(Keys.ENTER)
    link = browser.find_element(By.CSS_SELECTOR, "#check-replica_skew .ids a")
    link.send_keys(Keys.ENTER)
    assert ask(browser, "location.hash") == "#request=req-0000002"
    assert "req-0000002" in browser.find_element(By.ID, "detail").text


def test_the_filters_narrow_the_list(browser: webdriver.Chrome, page: Path) -> None:
    """Only answers of the chosen check stay, and the count says so."""
    show(browser, page)
    before = browser.find_element(By.ID, "count").text
    select = browser.find_element(By.CSS_SELECTOR, "#filters select[name=check]")
    select.find_element(By.CSS_SELECTOR, "option[value=replica_skew]").click()
    shown = browser.find_elements(By.CSS_SELECTOR, "#list button")
    assert len(shown) == 3
    assert all("Replica skew" in button.text for button in shown)
    assert browser.find_element(By.ID, "count").text != before


def test_the_keyboard_reaches_everything_in_reading_order(
    browser: webdriver.Chrome, page: Path
) -> None:
    """Tab goes down the page: skip link, sections, theme, the checks, then what follows them."""
    show(browser, page)
    seen: list[str] = []
    for _ in range(17):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(
            ask(browser, "document.activeElement.closest('details.check')?.id"
                " ?? document.activeElement.getAttribute('href')"
                " ?? document.activeElement.name ?? document.activeElement.tagName")
        )  # fmt: skip
    assert seen[0] == "#checks"
    assert seen[1:6] == ["#time", "#where", "#trust", "#answers", "#repeat"]
    assert seen[6] == "theme"
    assert [name for name in seen if name.startswith("check-")] == [
        "check-replica_skew", "check-autoscaling_lag", "check-streaming", "check-cache_eviction",
        "check-model_quality", "check-traffic_drift", "check-tenant_fairness",
        "check-fidelity", "check-run_health",
    ]  # fmt: skip
    outline = ask(browser, "getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_cursor_is_shared_by_all_strips(browser: webdriver.Chrome, page: Path) -> None:
    """Hovering one moment shows rate, replicas, queue, TTFT and score of that moment together."""
    show(browser, page)
    browser.execute_script(  # type: ignore[no-untyped-call]
        "document.documentElement.style.scrollBehavior = 'auto';"
        "document.getElementById('chart-timeline').scrollIntoView()"
    )
    plot = browser.find_element(By.CSS_SELECTOR, "#chart-timeline .nsewdrag")
    webdriver.ActionChains(browser).move_to_element(plot).pause(0.6).perform()
    text = " ".join(
        node.text for node in browser.find_elements(By.CSS_SELECTOR, "#chart-timeline .hoverlayer")
    )
    for name in ("offered", "completed", "running", "in the deployment", "p50", "p99"):
        assert name in text


def test_a_hundred_thousand_requests_stay_one_small_page(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """However many requests are behind it, the file stays under 3 MB and shows its verdict."""
    run = lively_run(tmp_path / "run", rows=100_000, error_ratio=0.01)
    run.write_findings(sample_findings())
    page = write_report(run)
    assert page.stat().st_size < 3_000_000
    show(browser, page)
    assert "answers 9.2 points worse" in browser.find_element("tag name", "h1").text
    assert not console(browser)


def test_print_shows_the_figures_in_light_colours(browser: webdriver.Chrome, page: Path) -> None:
    """A PDF of a dark page is light, and holds more than one page."""
    show(browser, page, dark=True)
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(json.dumps(pdf)) > 50_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert ask(browser, "getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_a_run_without_cluster_data_shows_why(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """A page with missing parts is whole: no error, no empty chart."""
    run = lively_run(tmp_path / "run", rows=600)
    run.path(CLUSTER.file).unlink()
    run.path(SCORES.file).unlink()
    page = write_report(Run.open(run.folder))
    show(browser, page)
    assert console(browser) == []
    assert "clustereval score" in browser.find_element(By.CSS_SELECTOR, ".missing").text
