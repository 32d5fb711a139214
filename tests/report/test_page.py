"""The page as text: self-contained, bounded, honest about what is missing, and without secrets."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clustereval.core.columns import CLUSTER, REQUESTS, SCORES
from clustereval.report import vendor
from clustereval.report.html import write_report
from clustereval.rundir import FINDINGS, PROMPTS, Manifest, Run
from tests.report.samples import lively_run, sample_findings
from tests.support.synthetic import scenario

MOST_BYTES = 3_000_000


class Page(HTMLParser):
    """Elements, inline scripts by type, and the text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text: list[str] = []
        self._inside: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        elif self._inside != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = lively_run(tmp_path / "run", rows=900)
    made.write_findings(sample_findings())
    return made


def read(run: Run) -> Page:
    return Page(write_report(Run.open(run.folder)).read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(run: Run) -> None:
    """No address to load from; every script's hash is in the policy; no event attributes."""
    page = read(run)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    executed = [text for kind, text in page.scripts if kind is None]
    assert len(executed) == 2
    for text in executed:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "base", "object"}
        assert not {name for name in attributes if name.startswith("on") or name == "src"}
        if tag == "a":
            assert (attributes["href"] or "").startswith("#")


def test_the_first_screen_states_verdict_checks_and_run(run: Run) -> None:
    """Sentence, every check with its symbol and effect, and the run in one line."""
    words = read(run).words
    for part in (
        "answers 9.2 points worse than its siblings", "Replica skew", "9.2 pt", "5.1 to 13.4",
        "not observed", "about 900 more requests would decide", "client and probe", "synthetic",
    ):  # fmt: skip
        assert part in words


@pytest.mark.parametrize("gone", [CLUSTER.file, SCORES.file, FINDINGS, REQUESTS.file, PROMPTS])
def test_a_run_without_one_of_its_files_still_gives_a_page(run: Run, gone: str) -> None:
    """The page names what is missing and the command that makes it."""
    run.path(gone).unlink()
    words = read(run).words
    if gone != PROMPTS:
        assert gone in words
        assert "clustereval score" in words


def test_a_run_that_was_cut_short_at_once_gives_a_page(tmp_path: Path) -> None:
    """Only a manifest: no verdict, no chart, and what to do."""
    from clustereval.rundir import Target

    run = Run.create(
        tmp_path / "run",
        Manifest(
            name="cut", state="interrupted", scenario=scenario(), seed=0,
            target=Target(url="http://127.0.0.1:1/v1", model="m"),
        ),
    )  # fmt: skip
    words = read(run).words
    assert "This run is interrupted" in words
    assert "no verdict yet" in words.lower()
    assert "Nothing to draw" in words


def test_what_the_client_alone_cannot_see_is_named_with_the_remedy(run: Run) -> None:
    """No empty chart: the place says what was not observed and how to see it."""
    frame = run.requests
    for column in (
        "replica_id", "replica_rank", "queue_depth", "cluster_queue_depth", "replica_count",
        "saturation", "saturation_bucket", "cache_hit_ratio", "cache_bucket", "cached_tokens",
    ):  # fmt: skip
        frame[column] = None
    run.write_table(REQUESTS, frame)
    run.path(CLUSTER.file).unlink()
    words = read(run).words
    assert "Not observed: replicas and queue depth." in words
    assert "Not observed: which replica answered." in words
    assert "--enable-prompt-tokens-details" in words
    assert "--ray-dashboard" in words


def test_a_run_in_which_nothing_was_answered_gives_a_page(run: Run) -> None:
    """Every request failed: no TTFT, no scores, and all of them counted."""
    frame = run.requests
    frame["outcome"] = "error"
    frame["error_type"] = "connection_refused"
    for column in ("output_text", "ttft_due_s", "ttft_sent_s", "first_token_s", "itl_s"):
        frame[column] = None
    run.write_table(REQUESTS, frame)
    scores = run.scores
    scores["status"], scores["value"] = "unscored", None
    run.write_table(SCORES, scores)
    words = read(run).words
    assert "No request gave a first token" in words
    assert "900" in words


def test_no_credential_reaches_the_page(run: Run) -> None:
    """Secrets that a user wrote into the scenario, the command or the URL are hidden."""
    tenants: list[dict[str, Any]] = [
        {"name": "acme", "share": 1, "headers": {"Authorization": "Bearer s3cret-value"}}
    ]
    target = run.manifest.target.model_copy(update={"url": "https://u:s3cret-value@host/v1"})
    run.update_manifest(
        scenario=scenario(tenants=tenants), target=target,
        command=["clustereval", "run", "--set", "x.headers.authorization=s3cret-value"],
    )  # fmt: skip
    assert "s3cret-value" not in write_report(run).read_text(encoding="utf-8")


def test_the_vendored_bundle_is_the_published_one() -> None:
    """The hash is that of the npm package, the licence lies beside it, and no script can end."""
    bundle = (vendor.TEMPLATE / vendor.BUNDLE).read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == vendor.SHA256
    assert f"v{vendor.VERSION}".encode() in bundle[:200]
    assert b"MIT" in (vendor.TEMPLATE / vendor.LICENCE).read_bytes()
    for name in (vendor.BUNDLE, "report.js"):
        text = (vendor.TEMPLATE / name).read_text(encoding="utf-8")
        assert "</script" not in text.lower()
        assert "<!--" not in text
        assert "\r" not in text
