"""Calibration: lengths are kept within 5% by whatever tokenizer the target has."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clustereval.core.errors import TargetError
from clustereval.core.padding import Padder, unchanged, wish_of
from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.scenario_file import LoadedScenario, load_scenario
from clustereval.core.shipped import scenarios_dir
from clustereval.load.arrivals import make_plan
from clustereval.observe.calibration import (
    MAX_COUNTED,
    calibrate,
    calibrate_run,
    calibration_notes,
    kept_note,
    lengths,
    needs_calibration,
)
from clustereval.rundir import Manifest, Run, Target
from tests.support.traces import Asked, mooncake_file

TOKENIZERS = {
    # A word each, a few tokens for each message, as chat templates have them.
    "words": lambda text: len(re.findall(r"\w+|[^\w\s]", text)),
    # Pieces of at most three letters: every word of filler is two tokens.
    "pieces": lambda text: len(re.findall(r" ?\w{1,3}|[^\w\s]|\s+", text)),
    # Some words are one token and some are two, as in a small vocabulary.
    "uneven": lambda text: sum(1 + (word[:1] < "f") for word in re.findall(r"\w+|[^\w\s]", text)),
    "bytes": lambda text: len(text.encode()),
}


def counter(tokenize: Any) -> Any:
    """A target's count: a template around each message, tools as JSON before all."""

    def count(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> int:
        head = tokenize(json.dumps(tools)) + 20 if tools else 0
        return head + 3 + sum(4 + tokenize(message["content"]) for message in messages)

    return count


def traced(tmp_path: Path) -> tuple[LoadedScenario, pd.DataFrame]:
    """The golden set, and a plan of 400 requests with lengths over three decades."""
    golden = load_scenario(scenarios_dir() / "prelaunch.yaml")
    rng = np.random.default_rng(1)
    asked = [
        Asked(
            10 * n,
            int(10 ** rng.uniform(1, 4)),
            9,
            tuple(range(1000 * (n % 9), 1000 * (n % 9) + 20)),
        )
        for n in range(401)
    ]
    mooncake_file(tmp_path / "t", asked)
    scenario = Scenario.model_validate(
        {
            "name": "t",
            "prompt_sets": golden.scenario.prompt_sets,
            "phases": [
                {"name": "real", "duration_s": 4.0, "arrivals": {"process": "trace", "file": "t"}}
            ],
        }
    )
    loaded = golden.model_copy(update={"scenario": scenario, "folder": tmp_path})
    return loaded, make_plan(loaded, seed=1, salt="s", replicas=None)


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_lengths_are_kept_by_the_targets_own_count(tmp_path: Path, name: str) -> None:
    """Every prompt that is longer than its golden prompt is within 5% of its wish, nearly always
    within 2%; the shorter ones are told of before the load."""
    loaded, plan = traced(tmp_path)
    count = counter(TOKENIZERS[name])
    found = calibrate(plan, loaded.prompts, 1, count)
    padder = Padder(1, found)
    off, left_out = [], 0
    for row in plan.itertuples():
        prompt, wish = loaded.prompts[row.prompt_id], wish_of(row)
        if padder.words(prompt, wish.input_tokens) > 0:
            tokens = count(padder.messages(prompt, wish), prompt.tools)
            off.append(abs(tokens - wish.input_tokens) / wish.input_tokens)
        else:
            tokens = count(unchanged(prompt), prompt.tools)
            left_out += abs(tokens - wish.input_tokens) > 0.05 * wish.input_tokens
    assert len(off) > 90
    assert max(off) < 0.05
    assert np.quantile(off, 0.9) < 0.02
    assert found.requests < 300
    told = lengths(plan, loaded.prompts, 1, found)
    assert (told.planned, told.unfit) == (len(plan), left_out)
    assert any(f"{told.unfit} of {told.planned}" in note for note in calibration_notes(found, told))


def test_only_so_many_prompts_are_counted(tmp_path: Path) -> None:
    """A large prompt set is not asked through: the length of the rest is guessed by characters."""
    text = [f"question number {n} " * (3 + n % 5) for n in range(600)]
    library = PromptLibrary(
        Prompt(id=f"p{n}", family="qa", messages=[Message(role="user", content=content)])
        for n, content in enumerate(text)
    )
    plan = pd.DataFrame(
        {
            "prompt_id": [f"p{n}" for n in range(600)],
            "input_tokens": pd.array([500] * 600, dtype="Int64"),
            "prefix_blocks": None,
            "block_tokens": pd.array([pd.NA] * 600, dtype="Int64"),
            "content_id": [f"c{n}" for n in range(600)],
        }
    )
    count = counter(TOKENIZERS["words"])
    found = calibrate(plan, library, 1, count)
    assert len(found.prompt_tokens) == MAX_COUNTED
    padder = Padder(1, found)
    for row in plan.itertuples():
        tokens = count(padder.messages(library[row.prompt_id], wish_of(row)), None)
        assert tokens == pytest.approx(500, rel=0.05)


def test_a_target_that_counts_no_filler_is_refused(tmp_path: Path) -> None:
    """Usage that does not grow with the prompt cannot be calibrated."""
    loaded, plan = traced(tmp_path)
    with pytest.raises(TargetError, match="more filler is not more prompt tokens"):
        calibrate(plan, loaded.prompts, 1, lambda messages, tools: 7)


def test_what_was_kept_is_told_after_the_load(tmp_path: Path) -> None:
    """Of the prompts that were counted, how many had their length; nothing where none is padded."""
    frame = pd.DataFrame(
        {"input_tokens": [100, 100, 100, None], "prompt_tokens": [104, 90, None, 5]}
    )
    assert "1 of 2 prompts" in str(kept_note(frame.astype("Int64")))
    assert kept_note(frame.iloc[3:].astype("Int64")) is None
    assert not needs_calibration(frame.iloc[3:])


class _Target(BaseHTTPRequestHandler):
    """Counts words; refuses what is longer than its context; may tell no usage."""

    usage = True
    context = 10**9

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        tokens = counter(TOKENIZERS["words"])(body["messages"], body.get("tools"))
        assert body["max_tokens"] == 1
        answer: dict[str, Any] = {"usage": {"prompt_tokens": tokens}} if self.usage else {}
        status = 200
        if tokens > self.context:
            status, answer = 400, {"error": {"message": "too long for the context"}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def target() -> Iterator[tuple[str, type[_Target]]]:
    handler = type("Target", (_Target,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", handler
    server.shutdown()
    thread.join()
    server.server_close()


def made_run(folder: Path, loaded: LoadedScenario, url: str) -> Run:
    run = Run.create(
        folder,
        Manifest(name="t", scenario=loaded.scenario, seed=1, target=Target(url=url, model="m")),
    )
    run.write_prompts(loaded.prompts)
    return run


def test_a_run_is_calibrated_over_http(tmp_path: Path, target: tuple[str, type[_Target]]) -> None:
    """The manifest holds what was measured, and the notes say what it took."""
    loaded, plan = traced(tmp_path)
    run = made_run(tmp_path / "run", loaded, target[0])
    notes = calibrate_run(run, plan, 5.0)
    found = Run.open(run.folder).manifest.padding
    assert found is not None
    assert found.tokens_per_word == pytest.approx(1.0)
    assert found.largest_error_ratio is not None
    assert found.largest_error_ratio < 0.05
    assert f"({found.requests} requests)" in notes[0]


def test_what_a_target_lacks_is_told(tmp_path: Path, target: tuple[str, type[_Target]]) -> None:
    """No usage, or a context too small for the trace: each says which key to change."""
    loaded, plan = traced(tmp_path)
    url, handler = target
    handler.usage = False
    with pytest.raises(TargetError, match="lengths: false"):
        calibrate_run(made_run(tmp_path / "a", loaded, url), plan, 5.0)
    handler.usage, handler.context = True, 3000
    with pytest.raises(TargetError, match="max_input_tokens") as error:
        calibrate_run(made_run(tmp_path / "b", loaded, url), plan, 5.0)
    assert "too long for the context" in str(error.value)
