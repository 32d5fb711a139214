"""Access lines of replicas and proxies, in both formats, hostile ones included."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustereval.core.errors import TargetError
from clustereval.observe import access_logs
from clustereval.observe.access_lines import parse_line
from clustereval.observe.access_logs import collect_access
from clustereval.observe.dashboard import Dashboard, ProxyState
from clustereval.observe.sampler import SeenReplica
from clustereval.rundir import read_json_lines
from tests.observe.servers import Call, Reply, json_reply, serving

# Written by Ray 2.60.
TEXT = (
    "INFO 2026-11-20 12:26:40,144 chat_Chat c121lqbp req-1 -- POST /v1/chat/completions 200 3.6ms"
)
TEXT_CALL = (
    "INFO 2026-11-20 12:26:40,144 default_LLMServer:my model"
    " c121lqbp req-1 -- CALL chat OK 2547.7ms"
)
STARTED = "INFO 2026-11-20 12:26:15,553 chat_Chat c121lqbp -- Started initializing replica."
FINISHED = "INFO 2026-11-20 12:26:15,874 chat_Chat c121lqbp -- Finished initializing replica."
JSON = json.dumps(
    {
        "asctime": "2026-11-20 12:26:40,216",
        "levelname": "INFO",
        "message": "CALL chat OK 2.6ms",
        "deployment": "multi_Engine",
        "replica": "c121lqbp",
        "application": "multi",
        "route": "/multi",
        "request_id": "mreq-1",
        "timestamp_ns": 1795177600216775136,
    }
)


def test_the_text_format_is_read() -> None:
    """Request id, status, latency and time, as Ray 2.60 writes them."""
    line = parse_line(TEXT, "c121lqbp")
    assert line is not None
    assert (line.kind, line.request_id, line.status) == ("access", "req-1", "200")
    assert (line.method, line.route) == ("POST", "/v1/chat/completions")
    assert line.latency_s == pytest.approx(0.0036)
    assert line.log_s == datetime(2026, 11, 20, 12, 26, 40, 144000, UTC).timestamp()
    assert line.unix_s is None


def test_a_deployments_name_may_hold_spaces() -> None:
    """The replica's id, which is known, marks where the request id starts."""
    line = parse_line(TEXT_CALL, "c121lqbp")
    assert line is not None
    assert (line.request_id, line.status, line.latency_s) == ("req-1", "OK", 2.5477)


def test_the_json_format_is_read() -> None:
    """It states unix time itself."""
    line = parse_line(JSON, "whatever")
    assert line is not None
    assert (line.request_id, line.status, line.method) == ("mreq-1", "OK", "CALL")
    assert line.unix_s == pytest.approx(1795177600.2167752)


def test_a_replicas_start_is_read() -> None:
    """Started and finished initialising, and nothing that only quotes them."""
    started, finished = parse_line(STARTED, "c121lqbp"), parse_line(FINISHED, "c121lqbp")
    assert started is not None
    assert finished is not None
    assert (started.kind, finished.kind) == ("started", "finished")
    quoted = "INFO 2026-11-20 12:26:15,874 a c121lqbp r1 -- said: Finished initializing replica."
    assert parse_line(quoted, "c121lqbp") is None


_PIECES = st.sampled_from(
    [
        *("INFO", "2026-11-20 12:26:40,144", "2026-99-99 12:26:40,144", "c121lqbp", "--", "POST"),
        *("200", "3.6ms", "1e999ms", "Finished initializing replica.", "{", "\x00", "\u2028"),
        *("٣ms", "null"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(_PIECES, max_size=12).map(" ".join),
        st.recursive(
            st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=20)),
            lambda inner: st.dictionaries(
                st.sampled_from(["asctime", "message", "request_id", "timestamp_ns"]), inner
            ),
            max_leaves=6,
        ).map(json.dumps),
    )
)
def test_no_line_breaks_the_parser(line: str) -> None:
    """Whatever a log holds, the answer is a whole record or none."""
    parsed = parse_line(line, "c121lqbp")
    if parsed is not None:
        assert math.isfinite(parsed.log_s)
        json.dumps({"latency_s": parsed.latency_s}, allow_nan=False)
        assert parsed.kind != "access" or (parsed.request_id and parsed.latency_s is not None)


@settings(max_examples=150, deadline=None)
@given(
    request_id=st.from_regex(r"[A-Za-z0-9_.:/-]{1,40}", fullmatch=True).filter(lambda s: s != "--"),
    route=st.text(
        st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30
    ),
    milliseconds=st.integers(0, 10_000_000).map(lambda n: n / 10),
    status=st.sampled_from(["200", "OK", "ERROR", "CANCELLED", "499"]),
)
def test_what_ray_writes_is_read_back(
    request_id: str, route: str, milliseconds: float, status: str
) -> None:
    """Round trip, with any route: dashes and latencies inside it do not confuse the parser."""
    message = f"POST {route} {status} {milliseconds:.1f}ms"
    line = parse_line(
        f"INFO 2026-11-20 12:26:40,144 a_D c121lqbp {request_id} -- {message}", "c121lqbp"
    )
    assert line is not None
    assert (line.request_id, line.status) == (request_id, status)
    assert line.latency_s == pytest.approx(milliseconds / 1000)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_logs, "PAUSES_S", (0.0, 0.0))


def _dashboard(files: dict[str, str], missing_node: str = "gone") -> Any:
    def handle(call: Call) -> Reply:
        if missing_node in call.path:
            return Reply(500, [b"Agent not found"])
        if call.path.startswith("/api/v0/logs/file"):
            name = call.path.split("filename=")[1].split("&")[0].replace("%2F", "/")
            found = files.get(name)
            return Reply(500, [b"not found"]) if found is None else Reply(200, [found.encode()])
        return json_reply({"result": True, "data": {"result": {"internal": list(files)}}})

    return handle


def _replica(replica_id: str, start_time_s: float | None, node: str = "n1") -> SeenReplica:
    path = f"/serve/replica_chat_Chat_{replica_id}.log"
    return SeenReplica("chat", "Chat", replica_id, node, start_time_s, path)


def test_rotated_logs_are_read_and_a_lost_node_is_told(tmp_path: Path) -> None:
    """Parts are read oldest first; a replica whose node is gone is a note, not a failure."""
    files = {
        "serve/replica_chat_Chat_c121lqbp.log": TEXT + "\n",
        "serve/replica_chat_Chat_c121lqbp.log.1": f"{STARTED}\n{FINISHED}\ngarbage\n",
        "serve/replica_chat_Chat_other.log": "not ours\n",
    }
    out = tmp_path / "raw/access.jsonl"
    # The log's clock is five hours behind UTC.
    start = datetime(2026, 11, 20, 17, 26, 14, tzinfo=UTC).timestamp()
    with serving(_dashboard(files)) as url:
        result = collect_access(
            Dashboard(url), out, replicas=[_replica("c121lqbp", start), _replica("x", 1, "gone")]
        )
    records = read_json_lines(out)
    assert [record["kind"] for record in records] == ["started", "finished", "access"]
    zone = 5 * 3600
    utc = datetime(2026, 11, 20, 12, 26, 40, 144000, UTC).timestamp()
    assert records[2]["unix_s"] == pytest.approx(utc + zone)
    assert records[2]["deployment"] == "Chat"
    assert (result.access_lines, result.logs) == (1, 1)
    assert len(result.notes) == 1
    assert "replica x" in result.notes[0]


def test_lines_from_before_the_run_are_left_out(tmp_path: Path) -> None:
    """A long-lived replica's old requests are not fetched into the run; its start is."""
    old = TEXT.replace("12:26:40", "12:20:00").replace("req-1", "old")
    files = {
        "serve/replica_chat_Chat_c121lqbp.log": f"{STARTED}\n{old}\n{TEXT}\n",
        "serve/proxy_10.0.0.1.log": TEXT.replace("chat_Chat c121lqbp", "proxy 10.0.0.1") + "\n",
    }
    out = tmp_path / "access.jsonl"
    start = datetime(2026, 11, 20, 12, 26, 14, tzinfo=UTC).timestamp()
    proxy = ProxyState(node_id="n1", node_ip="10.0.0.1", log_file_path="/serve/proxy_10.0.0.1.log")
    with serving(_dashboard(files)) as url:
        collect_access(
            Dashboard(url),
            out,
            replicas=[_replica("c121lqbp", start)],
            proxies=[proxy],
            since_unix_s=start,
        )
    records = read_json_lines(out)
    assert [record["kind"] for record in records] == ["started", "access", "proxy"]
    assert [record.get("request_id") for record in records] == [None, "req-1", "req-1"]


def test_a_node_that_is_too_busy_at_first_is_asked_again(tmp_path: Path) -> None:
    """Right after a burst an agent may answer with an error; one that stays away is asked three
    times in all, whatever the number of its replicas."""
    asked: list[str] = []
    sound = _dashboard({"serve/replica_chat_Chat_c121lqbp.log": TEXT + "\n"})

    def busy(call: Call) -> Reply:
        asked.append(call.path)
        return Reply(500, [b"in trouble"]) if len(asked) < 3 else sound(call)

    with serving(busy) as url:
        result = collect_access(
            Dashboard(url), tmp_path / "a.jsonl", replicas=[_replica("c121lqbp", 1.0)]
        )
    assert (result.access_lines, result.notes) == (1, [])
    asked.clear()

    def gone(call: Call) -> Reply:
        asked.append(call.path)
        return Reply(500, [b"Agent not found"])

    with serving(gone) as url, pytest.raises(TargetError):
        collect_access(
            Dashboard(url),
            tmp_path / "a.jsonl",
            replicas=[_replica(f"r{i}", 1.0) for i in range(9)],
        )
    assert len(asked) == 3


def test_no_log_at_all_is_an_error(tmp_path: Path) -> None:
    """When every fetch fails the caller hears why, and what to look at."""
    with (
        serving(_dashboard({}, missing_node="n1")) as url,
        pytest.raises(TargetError, match="500") as caught,
    ):
        collect_access(Dashboard(url), tmp_path / "a.jsonl", replicas=[_replica("c121lqbp", 1.0)])
    assert "--dashboard-agent-listen-port" in (caught.value.change or "")
