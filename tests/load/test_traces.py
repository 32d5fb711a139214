"""Traces: every format gives the same table, however the file was written; bad ones are named."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clustereval.core.errors import TraceFileError
from clustereval.load.traces import lines as lines_module
from clustereval.load.traces import otel as otel_module
from clustereval.load.traces import read_trace
from clustereval.load.traces import table as table_module
from tests.support.traces import (
    WRITERS,
    Asked,
    azure,
    burstgpt,
    export,
    mooncake,
    otel,
    plain,
    save,
    span,
)

ROWS = st.lists(
    st.builds(
        Asked,
        t_ms=st.integers(0, 10**7),
        input_tokens=st.integers(1, 10**6),
        output_tokens=st.integers(1, 10**5),
        blocks=st.lists(st.integers(0, 50), max_size=5, unique=True).map(tuple),
    ),
    min_size=1,
    max_size=20,
)


def fresh(tmp_path: Path) -> Path:
    """A path that was not read before: one test asks for many files."""
    return tmp_path / f"trace-{len(os.listdir(tmp_path))}"


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.sampled_from(sorted(WRITERS)),
    rows=ROWS,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    zipped=st.booleans(),
    blank=st.booleans(),
)
def test_what_was_written_is_read(
    tmp_path: Path, form: str, rows: list[Asked], end: str, bom: bool, zipped: bool, blank: bool
) -> None:
    """Any order, any line ends, BOM, gzip and blank lines: the requests come back by time."""
    written = WRITERS[form](rows)
    written = [*written[:1], "", *written[1:], ""] if blank else written
    trace = read_trace(save(fresh(tmp_path), written, end=end, bom=bom, zipped=zipped))
    expected = sorted(rows, key=lambda row: row.t_ms)
    first = expected[0].t_ms
    assert trace.format == form
    np.testing.assert_allclose(
        trace.t_s, [(row.t_ms - first) / 1000 for row in expected], atol=2e-6
    )
    assert trace.rows["input_tokens"].tolist() == [row.input_tokens for row in expected]
    assert trace.rows["output_tokens"].tolist() == [row.output_tokens for row in expected]
    behind = sum(b.t_ms < a.t_ms for a, b in pairwise(rows))
    assert any("not in order of time" in note for note in trace.notes) == (behind > 0)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_blocks_are_shared_as_the_trace_says(tmp_path: Path, rows: list[Asked]) -> None:
    """Two requests have equal ids in a place exactly where the file has, after sorting too."""
    trace = read_trace(save(fresh(tmp_path), mooncake(rows)))
    expected = sorted(rows, key=lambda row: row.t_ms)
    if not any(row.blocks for row in rows):
        assert trace.prefixes is None
        return
    assert trace.prefixes is not None
    assert trace.prefixes.block_tokens == 512
    known: dict[int, int] = {}
    for index, row in enumerate(expected):
        ids = trace.prefixes.of(index).tolist()
        assert len(ids) == len(row.blocks)
        for code, block in zip(ids, row.blocks, strict=True):
            assert known.setdefault(block, code) == code
    assert len(set(known.values())) == len(known)


def test_the_name_decides_nothing(tmp_path: Path) -> None:
    """A Mooncake trace called azure.csv is a Mooncake trace."""
    path = save(tmp_path / "azure.csv", mooncake([Asked(0, 10, 5, (1,))]))
    assert read_trace(path).format == "mooncake"


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """What was read is kept only as long as the file is the same."""
    path = save(tmp_path / "t", plain([Asked(0, 1, 1)]))
    assert len(read_trace(path)) == 1
    save(path, plain([Asked(0, 1, 1), Asked(5, 1, 1)]))
    assert len(read_trace(path)) == 2


def test_requests_at_one_moment_stay_apart(tmp_path: Path) -> None:
    """Duplicate times are requests of their own, in the file's order, and are told of."""
    path = save(tmp_path / "t", plain([Asked(7, 1, 1), Asked(7, 2, 1), Asked(7, 3, 1)]))
    trace = read_trace(path)
    assert trace.rows["input_tokens"].tolist() == [1, 2, 3]
    assert any("2 requests have the time of the one before" in note for note in trace.notes)


def test_what_is_not_told_is_null(tmp_path: Path) -> None:
    """An empty cell, a column that is not there, and BurstGPT's failed requests are no zeroes."""
    path = save(tmp_path / "a", ["time_s,input_tokens,other", "1,,x", "2,30,y"])
    trace = read_trace(path)
    assert trace.rows["input_tokens"].isna().tolist() == [True, False]
    assert trace.rows["output_tokens"].isna().all()
    assert trace.rows["label"].isna().all()
    failed = read_trace(save(tmp_path / "b", burstgpt([Asked(0, 40, 0, (), "GPT-4")])))
    assert failed.rows["output_tokens"].isna().all()
    assert failed.rows["label"].tolist() == ["GPT-4"]


def test_a_plain_csv_may_have_dates_and_semicolons(tmp_path: Path) -> None:
    """ISO times are read as moments, whatever separates the columns."""
    path = save(
        tmp_path / "t",
        ["tenant;time;input_tokens", "a;2026-01-01T12:00:00+01:00;5", "b;2026-01-01T11:00:01.5Z;6"],
    )
    trace = read_trace(path)
    assert trace.t_s.tolist() == [0.0, 1.5]
    assert trace.rows["label"].tolist() == ["a", "b"]


def test_the_header_says_what_separates_the_columns(tmp_path: Path) -> None:
    """Whatever stands in the rows: a label may hold more commas than there are semicolons."""
    trace = read_trace(save(tmp_path / "t", ["time_s;tenant", '1;"a,b,c"', "2;d,e,f,g"]))
    assert trace.rows["label"].tolist() == ["a,b,c", "d,e,f,g"]


def test_a_plain_header_with_a_wrong_time_is_told_its_name(tmp_path: Path) -> None:
    """Columns of a plain CSV are not taken for another publisher's because of their time."""
    path = save(tmp_path / "t", ["timestamp,input_tokens,output_tokens", "1,2,3"])
    with pytest.raises(TraceFileError, match="plain CSV") as error:
        read_trace(path)
    assert "rename timestamp to time_s" in str(error.value)


def test_burstgpt_may_have_further_columns(tmp_path: Path) -> None:
    """Columns that later releases added change nothing."""
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens"
    path = save(tmp_path / "t", [header, "5.5,s1,2,GPT-4,17,3,20"])
    trace = read_trace(path)
    assert trace.format == "burstgpt"
    assert trace.rows["input_tokens"].tolist() == [17]


def test_one_request_is_one_row_however_many_spans_tell_of_it(tmp_path: Path) -> None:
    """Client and server spans of one request count once, the outermost; other spans not at all."""
    outer = span(Asked(0, 10, 5), 0)
    middle = {"traceId": outer["traceId"], "spanId": "aa", "parentSpanId": outer["spanId"]}
    inner = span(Asked(3, 10, 5), 0, spanId="bb", parentSpanId="aa")
    alone = span(Asked(9, 20, 6), 1)
    embedding = span(Asked(11, 3, 1), 2)
    embedding["attributes"][0]["value"]["stringValue"] = "embeddings"
    document = export([middle, inner, outer, alone, embedding])
    path = save(tmp_path / "t", json.dumps(document, indent=1).split("\n"))
    trace = read_trace(path)
    assert trace.rows["input_tokens"].tolist() == [10, 20]
    assert trace.t_s.tolist() == pytest.approx([0.0, 0.009], abs=1e-6)
    assert trace.rows["label"].tolist() == ["gateway", "gateway"]
    assert any("2 × span that asks no model" in note for note in trace.notes)


def test_too_many_spans_are_refused_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of few requests among many spans without a parent is read; one of more than is
    remembered is refused at the line where it is too much, not when memory is gone at its end."""
    monkeypatch.setattr(otel_module, "MAX_SPANS", 3)
    other = [json.dumps(export([{"traceId": f"t{i}", "spanId": f"s{i}"}])) for i in range(9)]
    asked = [json.dumps(export([span(Asked(i, 1, 1), i)])) for i in range(5)]
    assert len(read_trace(save(tmp_path / "few", [*other, *asked[:3]]))) == 3
    with pytest.raises(TraceFileError, match=":5: more than 3 requests"):
        read_trace(save(tmp_path / "many", [*asked, "{ no JSON"]))
    inner = {"traceId": "t", "parentSpanId": "p"}
    deep = [json.dumps(export([{**inner, "spanId": f"s{i}"}])) for i in range(9)]
    with pytest.raises(TraceFileError, match=":4: more than 3 requests"):
        read_trace(save(tmp_path / "deep", [*deep, "{ no JSON"]))


def test_the_older_names_of_usage_are_known(tmp_path: Path) -> None:
    """gen_ai.usage.prompt_tokens is what engines wrote before the conventions renamed it."""
    old = span(Asked(0, 10, 5), 0)
    old["attributes"] = [
        {"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": 12}},
        {"key": "gen_ai.usage.completion_tokens", "value": {"intValue": 4}},
    ]
    trace = read_trace(save(tmp_path / "t", [json.dumps(export([old], service=None))]))
    assert trace.rows[["input_tokens", "output_tokens"]].values.tolist() == [[12, 4]]


BAD = {
    "empty": ([""], "is empty"),
    "no trace": (["# a heading"], "no known trace"),
    "missing column": (["TIMESTAMP,ContextTokens", "x,1"], "lacks the column generatedtokens"),
    "column twice": (["time_s,tenant,Tenant", "1,a,b"], ":1: the column tenant twice"),
    "header alone": (["time_s"], "without a single request"),
    "short line": ([*plain([Asked(0, 1, 1)]), "3.0,4"], ":3: 2 columns"),
    "no number": (["time_s,input_tokens", "0,ten"], ":2: input_tokens is 'ten'"),
    "part of a token": (["time_s,input_tokens", "0,1.5"], ":2: input_tokens is '1.5'"),
    "negative": (["time_s,input_tokens", "0,-4"], ":2: an input of -4 tokens"),
    "huge": (["time_s,input_tokens", "0,1e300"], ":2: an input of"),
    "not a time": (["time_s", "0", "nan"], ":3: the time nan"),
    "not a date": ([*azure([Asked(0, 1, 1)]), "yesterday,1,1"], ":3: timestamp is 'yesterday'"),
    "cut JSON": ([*mooncake([Asked(0, 1, 1)]), '{"timestamp": 3'], ":2: malformed JSON"),
    "cut document": (['{"resourceSpans": [', "{"], ":3: malformed JSON"),
    "other JSON": (['{"prompt": "hello"}'], ":1: a JSON object of no known trace: prompt"),
    "a list": (["[1, 2]"], "no known trace"),
    "no output": (['{"timestamp": 1, "input_length": 3}'], ":1: no output_length"),
    "text as time": (
        ['{"timestamp": "now", "input_length": 3, "output_length": 1}'],
        ":1: timestamp is 'now'",
    ),
    "ids of text": (
        ['{"timestamp": 0, "input_length": 3, "output_length": 1, "hash_ids": ["a"]}'],
        ":1: hash_ids",
    ),
    "no spans": ([*otel([Asked(0, 1, 1)]), '{"resourceSpans": 5}'], ":2: malformed resourceSpans"),
    "span without time": (
        [json.dumps(export([span(Asked(0, 1, 1), 0, startTimeUnixNano=None)]))],
        "without startTimeUnixNano",
    ),
    "deep": (["[" * 200_000], "nested too deeply"),
    "thousands of digits": (
        [*mooncake([Asked(0, 1, 1)]), '{"timestamp": ' + "9" * 5000 + "}"],
        ":2: JSON nested",
    ),
    "thousands of digits at first": (
        ['{"timestamp": ' + "9" * 5000 + "}"],
        "a number without end",
    ),
    "pretty requests": (["[", *mooncake([Asked(0, 1, 1)]), "]"], "one JSON document over many"),
    "an empty object": (["{}"], "no known trace: an empty one"),
    "a bare number": ([*mooncake([Asked(0, 1, 1)]), "5"], ":2: no JSON object but 5"),
    "quoted line end": (["time_s,tenant", '1,"a', 'b"'], ":2: malformed CSV"),
    "a span of 1970": (
        [json.dumps(export([span(Asked(0, 1, 1), 0, startTimeUnixNano="0")]))],
        "without startTimeUnixNano",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_files_are_refused_with_their_line(tmp_path: Path, name: str) -> None:
    """What cannot be read is named with file and line, and says what was expected."""
    written, told = BAD[name]
    path = save(tmp_path / "t", written)
    with pytest.raises(TraceFileError) as error:
        read_trace(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert error.value.expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.just(10**400) | st.just("9" * 30),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["timestamp", "input_length", "output_length", "hash_ids", "resourceSpans", "resource",
             "scopeSpans", "spans", "attributes", "key", "value", "intValue", "startTimeUnixNano",
             "traceId", "gen_ai.usage.input_tokens", "gen_ai.operation.name"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


MOONCAKE = st.fixed_dictionaries(
    dict.fromkeys(("timestamp", "input_length", "output_length", "hash_ids"), VALUES)
)


@st.composite
def spans(draw: st.DrawFn) -> dict[str, object]:
    """An export request with a span of anything."""
    usage = {"key": "gen_ai.usage.input_tokens", "value": draw(VALUES)}
    service = {"key": "service.name", "value": {"stringValue": draw(VALUES)}}
    made = {"startTimeUnixNano": draw(VALUES), "traceId": draw(VALUES), "spanId": draw(VALUES)}
    request = export([{**made, "parentSpanId": draw(VALUES), "attributes": [usage]}])
    request["resourceSpans"][0]["resource"]["attributes"] = [service, draw(VALUES)]
    return request


def refused_at_most(path: Path) -> str:
    """Reads a file; what it was refused for, or nothing."""
    try:
        read_trace(path)
    except TraceFileError as error:
        return str(error)
    return ""


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        MOONCAKE | spans() | st.fixed_dictionaries({"resourceSpans": VALUES}) | VALUES,
        min_size=1,
        max_size=3,
    )
)
def test_no_json_is_a_traceback(tmp_path: Path, values: list[object]) -> None:
    """Whatever JSON a file holds, it is read, or refused with a message that names it."""
    path = save(fresh(tmp_path), [json.dumps(value) for value in values])
    assert str(path) in (refused_at_most(path) or str(path))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["time_s", "time", "TIMESTAMP,ContextTokens,GeneratedTokens"]),
    st.lists(st.text(max_size=30), max_size=4),
)
def test_no_csv_is_a_traceback(tmp_path: Path, header: str, lines: list[str]) -> None:
    """Whatever stands below a header, it is read, or refused with a message that names it."""
    path = fresh(tmp_path)
    path.write_bytes("\n".join([header, *lines]).encode("utf-8", "surrogatepass"))
    assert str(path) in (refused_at_most(path) or str(path))


def test_blocks_that_do_not_fit_the_length_are_told(tmp_path: Path) -> None:
    """One id for each 512 tokens is what the format means; of others there is a note."""
    fits = [Asked(0, 1024, 1, (1, 2)), Asked(1, 1025, 1, (1, 2, 3))]
    assert read_trace(save(tmp_path / "fits", mooncake(fits))).notes == ()
    odd = [*fits, Asked(2, 1000, 1, tuple(range(100)))]
    [note] = read_trace(save(tmp_path / "odd", mooncake(odd))).notes
    assert note.startswith("1 × hash_ids that are not one for each 512 tokens")


def test_a_span_that_was_exported_twice_is_one_request(tmp_path: Path) -> None:
    """An exporter that tries again sends the same span again."""
    line = json.dumps(export([span(Asked(0, 1, 1), 0)]))
    trace = read_trace(save(tmp_path / "t", [line, line]))
    assert len(trace) == 1
    assert trace.notes == ("left out: 1 × span that was exported before",)


def test_labels_are_text_that_can_be_written(tmp_path: Path) -> None:
    """Half a surrogate pair in a label's JSON becomes a stand-in, not an error when it is shown."""
    line = json.dumps(export([span(Asked(0, 1, 1), 0)], service="a\ud800"))
    assert read_trace(save(tmp_path / "t", [line])).rows["label"].tolist() == ["a?"]


def test_times_a_century_apart_are_refused(tmp_path: Path) -> None:
    """One wrong time would make a trace of nothing but silence."""
    with pytest.raises(TraceFileError, match="apart"):
        read_trace(save(tmp_path / "t", ["time_s", "0", "1e18"]))


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Missing, a folder, UTF-16, not UTF-8, half an archive: each says so."""
    whole = save(tmp_path / "whole", plain([Asked(i, 1, 1) for i in range(500)]), zipped=True)
    half = tmp_path / "half"
    half.write_bytes(whole.read_bytes()[:-200])
    wide = tmp_path / "wide"
    wide.write_text("time_s\n1\n", encoding="utf-16")
    packed = tmp_path / "packed"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(whole)
    other = tmp_path / "other"
    other.write_bytes(b"time_s,tenant\n1,caf\xe9\n")
    for path, told in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "no regular file"),
        (half, "cannot be read after line"),
        (wide, "UTF-16"),
        (other, "not UTF-8"),
        (packed, "a zip archive"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(TraceFileError, match=told):
            read_trace(path)


def test_more_than_memory_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many requests, too long a line: a message, before memory is gone."""
    monkeypatch.setattr(table_module, "MAX_REQUESTS", 3)
    monkeypatch.setattr(lines_module, "MAX_LINE", 100)
    many = save(tmp_path / "many", plain([Asked(i, 1, 1) for i in range(5)]))
    with pytest.raises(TraceFileError, match=":5: more than 3 requests"):
        read_trace(many)
    wide = save(tmp_path / "wide", ["time_s", "0", "1" * 200])
    with pytest.raises(TraceFileError, match=":3: longer than"):
        read_trace(wide)


@pytest.mark.simulation
def test_a_million_lines_take_little_memory(tmp_path: Path) -> None:
    """Gzip or not: the whole of it is read, within a gigabyte."""
    path = tmp_path / "million.csv.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("time_s,input_tokens,output_tokens,tenant\n")
        file.writelines(f"{n / 50:.2f},{n % 900},{n % 90},t{n % 7}\n" for n in range(1_000_000))
    code = (
        "import re, sys; from pathlib import Path;"
        "from clustereval.load.traces import read_trace;"
        "trace = read_trace(Path(sys.argv[1]));"
        # Not ru_maxrss: that of a child begins with what its parent holds.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1];"
        "print(len(trace), trace.length_s, peak)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    count, length_s, peak_kib = done.stdout.split()
    assert (int(count), float(length_s)) == (1_000_000, 19_999.98)
    assert int(peak_kib) < 2**20
