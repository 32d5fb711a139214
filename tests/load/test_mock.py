"""The mock's times are true: load generators are measured by them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clustereval.core.prompts import Message, Prompt, PromptLibrary
from clustereval.core.scenario import Request, Tenant
from clustereval.load.client import ChatClient
from clustereval.load.mock.answers import Pace, writes
from clustereval.load.mock.process import MockProcess
from clustereval.load.request_writer import RequestWriter
from clustereval.load.rows import Arrival
from clustereval.load.transport import Origin


def client(url: str) -> ChatClient:
    library = PromptLibrary(
        [Prompt(id="p", family="qa", messages=[Message(role="user", content="hello")])]
    )
    origin = Origin(url)
    write = RequestWriter(
        origin.target("/chat/completions"),
        origin.authority,
        model="mock",
        request=Request(),
        tenants=[Tenant(name="t", share=1)],
        prompts=library,
        api_key_env=None,
    )
    return ChatClient(origin, write, Request(), time.perf_counter)


def test_what_it_notes_is_what_a_client_sees(tmp_path: Path) -> None:
    """Each answer has one line, and its first token reached the client between the times noted."""
    pace = Pace(tokens=5, ttft_s=0.03, itl_s=0.01)
    with MockProcess(pace, tmp_path / "truth.csv") as mock:
        sender = client(mock.url)
        rows = [
            sender.send(Arrival(f"r-{i}", "a" * 32, "b" * 16, 0.0, "p", "t", "p", None), 0)
            for i in range(4)
        ]
        truth = mock.end().set_index("request_id")
    assert list(truth.index) == [f"r-{i}" for i in range(4)]
    assert {row["outcome"] for row in rows} == {"ok"}
    for row in rows:
        assert row["output_text"] == " token000 token001 token002 token003 token004"
        assert row["output_tokens"] == 5
        told = truth.loc[row["request_id"]]
        assert row["sent_s"] <= told.arrived_s + 0.001
        assert told.first_write_s - 0.001 <= row["first_token_s"] <= told.first_written_s + 0.001
        assert told.first_write_s - told.arrived_s >= pace.ttft_s - 1e-5
        whole_s = pace.ttft_s + 4 * pace.itl_s
        assert told.last_write_s - told.arrived_s >= whole_s - 1e-5


@pytest.mark.parametrize(("itl_s", "count"), [(0.0, 1), (0.01, 7)])
def test_an_answer_takes_as_few_writes_as_its_pace_allows(itl_s: float, count: int) -> None:
    """One write a token, or a single one for an answer without a pace; the bytes are the same."""
    made = writes(Pace(tokens=7, ttft_s=0.0, itl_s=itl_s))
    assert len(made) == count
    assert b"".join(made).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert b"".join(made).count(b'"content": " token') == 7
