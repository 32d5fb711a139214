"""A server that misbehaves in every way while healthy requests flow: nothing lost or miscounted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.load.engine import await_start, start_load
from clustereval.load.progress import RAW_LOAD, RAW_START
from clustereval.rundir import RAW_RESPONSES, Run, read_json_lines
from tests.load.support import planned_run
from tests.support.certificates import private_ca
from tests.support.chaos import FAULTS, MEGA, ChaosServer, Served

pytestmark = pytest.mark.process

KEY_ENV = {"CLUSTEREVAL_TEST_KEY": "sk-never-to-be-written-down"}
TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Outcome:
    """A run, what the server knows of it, and the load process's memory."""

    rows: pd.DataFrame
    log: dict[str, Served]
    closed_on: list[str]
    account: dict[str, object]
    t0_s: float
    grown_bytes: int
    secure: bool


@pytest.fixture(scope="module", params=["http", "https"])
def chaos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A quarter of the arrivals ask for trouble, of each kind; over TLS with a private CA too."""
    folder = tmp_path_factory.mktemp("chaos")
    secure = request.param == "https"
    ca, certificate, key = private_ca(folder)
    environ = {**os.environ, **KEY_ENV, "SSL_CERT_FILE": str(ca)}
    with ChaosServer(tls=(certificate, key) if secure else None) as server:
        run = _run(folder / "run", server.url, duration_s=4.0 if secure else 6.0)
        with start_load(run, environ=environ) as load:
            await_start(load)
            process = psutil.Process(load.pid)
            at_start = highest = process.memory_info().rss
            while not load.wait(0.05):
                highest = max(highest, _rss(process, highest))
    rows = pd.DataFrame(read_json_lines(run.path(RAW_RESPONSES)))
    return Outcome(
        rows=run.plan.drop(columns="due_s").merge(
            rows, on="request_id", how="left", validate="one_to_one"
        ),
        log=server.log,
        closed_on=server.closed_on,
        account=json.loads(run.path(RAW_LOAD).read_text()),
        t0_s=json.loads(run.path(RAW_START).read_text())["t0_monotonic_s"],
        grown_bytes=highest - at_start,
        secure=secure,
    )


def test_every_arrival_has_its_row_and_is_counted_once(chaos: Outcome) -> None:
    """Planned = recorded = the sum of the outcomes, and no mistake of our own among them."""
    rows, account = chaos.rows, chaos.account
    assert rows.outcome.notna().all()
    assert account["planned"] == account["recorded"] == len(rows)
    found = rows.outcome.value_counts().to_dict()
    assert account["outcomes"] == {"dropped": 0, **found}
    kinds = rows.error_type.dropna().value_counts().to_dict()
    assert account["error_types"] == kinds
    assert account["client_faults"] == 0
    assert account["resent"] == rows.resent_s.notna().sum()


def test_each_trouble_is_named_for_what_it_is(chaos: Outcome) -> None:
    """The rows of each fault have the outcome and the kind of error that it must have."""
    found: dict[str, set[tuple[str, str | None]]] = {}
    for row in chaos.rows[chaos.rows.tenant == "odd"].itertuples():
        kind = None if pd.isna(row.error_type) else str(row.error_type)
        found.setdefault(row.prompt_id, set()).add((str(row.outcome), kind))
    assert found == {name: {told} for name, told in FAULTS.items()}


def test_answers_that_are_whole_are_recorded_to_the_letter(chaos: Outcome) -> None:
    """Text and token counts are those that the server sent to that very request."""
    good = chaos.rows[chaos.rows.outcome == "ok"]
    assert len(good) > 0.7 * len(chaos.rows)
    for row in good.itertuples():
        served = chaos.log[row.request_id]
        assert row.output_text == served.text, row.prompt_id
        assert (row.prompt_tokens, row.output_tokens) == (served.prompt_tokens, served.tokens)
    cut = chaos.rows[chaos.rows.error_type.isin(["stream_cut", "stall", "stream_error"])]
    for row in cut.itertuples():
        # A reset takes with it what had arrived and was not read: TCP's way, on a full machine.
        gone = row.prompt_id == "reset_middle" and pd.isna(row.output_text)
        assert gone or row.output_text == chaos.log[row.request_id].text, row.prompt_id


def test_the_times_of_healthy_requests_are_the_server_s_own(chaos: Outcome) -> None:
    """First token and end are within milliseconds of the moments at which the server sent them,
    and no healthy request waited for a sick one."""
    healthy = chaos.rows[(chaos.rows.tenant == "well") & chaos.rows.resent_s.isna()]
    assert set(healthy.outcome) == {"ok"}
    served = [chaos.log[name] for name in healthy.request_id]
    for column, truth in (
        ("first_token_s", [one.first_token_s for one in served]),
        ("end_s", [one.last_s for one in served]),
    ):
        before, after = np.array(truth).T - chaos.t0_s
        at = healthy[column].to_numpy(float)
        error = np.maximum(np.maximum(before - at, at - after), 0.0)
        # The kernel stamps no TLS reads: there a full machine's other processes show.
        assert np.median(error) < (0.01 if chaos.secure else 0.002)
        # Taking a 10 MB answer apart holds the loop for some 50 ms.
        assert chaos.secure or np.quantile(error, 0.9) < 0.05
    late = healthy.sent_s - healthy.due_s
    assert late.min() > -0.001
    assert late.median() < 0.02
    arrived = np.array([one.arrived_s[-1] for one in served]) - chaos.t0_s
    assert np.median(arrived - healthy.sent_s.to_numpy(float)) < 0.02


def test_a_connection_that_closes_under_us_costs_no_request(chaos: Outcome) -> None:
    """Kept connections that the server closed as the next request came: sent again, and told."""
    again = chaos.rows[chaos.rows.resent_s.notna()]
    met = chaos.rows[chaos.rows.request_id.isin(chaos.closed_on)]
    assert len(met) > 0
    assert met.resent_s.notna().all()
    assert (met.resent_s - met.sent_s < 0.25).all()
    # What resets every request was met a second time on its new connection, and then told.
    others = again[~again.request_id.isin(chaos.closed_on)]
    assert set(others.prompt_id) <= {"reset_before", "close_before", "half_close_before"}
    assert all(len(chaos.log[name].arrived_s) == 2 for name in others.request_id)
    once = chaos.rows[chaos.rows.resent_s.isna()]
    assert all(len(chaos.log[name].arrived_s) == 1 for name in once.request_id)


def test_time_outs_end_what_never_ends(chaos: Outcome) -> None:
    """A stream without end, a silent server and a head without end take `timeout_s`, no longer."""
    endless = chaos.rows[chaos.rows.error_type == "timeout"]
    took = endless.end_s - endless.sent_s
    assert took.between(TIMEOUT_S - 0.02, TIMEOUT_S + 2.0).all()


def test_memory_is_bounded_by_what_is_in_flight(chaos: Outcome) -> None:
    """10 MB chunks and an event without end leave nothing behind."""
    large = chaos.rows.prompt_id.isin(["big_event", "big_chunk", "endless_event"]).sum()
    assert large * 10 * MEGA > 70 * MEGA
    assert chaos.grown_bytes < 250 * MEGA


def _run(folder: Path, url: str, *, duration_s: float) -> Run:
    library = PromptLibrary(
        Prompt(id=name, family="qa", messages=[Message(role="user", content=text)])
        for name, text in [
            *((f"fact-{i}", f"fact {i}") for i in range(20)),
            *((name, f"fault:{name}") for name in FAULTS),
        ]
    )
    sets = {"plain": [f"fact-{i}" for i in range(20)], "faults": list(FAULTS)}
    return planned_run(
        folder,
        url,
        library,
        sets,
        {
            "name": "chaos",
            "prompt_sets": {"plain": "plain.jsonl", "faults": "faults.jsonl"},
            "tenants": [
                {"name": "well", "share": 2, "prompts": {"plain": 1}},
                {"name": "odd", "share": 1, "prompts": {"faults": 1}},
            ],
            "phases": [
                {
                    "name": "storm",
                    "duration_s": duration_s,
                    "arrivals": {"process": "poisson", "rate": 60},
                }
            ],
            "request": {"timeout_s": TIMEOUT_S, "stall_s": 1.2},
        },
    )


def _rss(process: psutil.Process, otherwise: int) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return otherwise
