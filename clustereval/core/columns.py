"""The one declaration of every table of a run.

Readers, writers, the join and ``reports/README.md`` all come from here or are tested against it.
Units: seconds (``_s``), ratios in 0..1 (``_ratio``), token counts (``_tokens``). Null means *not
observed*; zero means zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd
import pyarrow as pa

Stage = Literal["plan", "load", "observe", "derived"]


@dataclass(frozen=True)
class Column:
    """One column: its name, its Arrow type, the stage that fills it, and what it means."""

    name: str
    type: pa.DataType
    stage: Stage
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table of a run: a file name and its columns."""

    file: str
    row: str
    columns: tuple[Column, ...]
    needs: tuple[str, ...]
    """Columns without which a file says nothing; others may be absent, as of an older run."""

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(column.name, column.type) for column in self.columns])

    def conform(self, frame: pd.DataFrame) -> pa.Table:
        """``frame`` as an Arrow table of exactly this schema; absent columns become null.

        Raises:
            ValueError: a column that is not declared, or a value that does not fit its type.
        """
        unknown = [name for name in frame.columns if name not in set(self.names)]
        if unknown:
            raise ValueError(f"{self.file}: undeclared columns {unknown}")
        arrays = [
            pa.Array.from_pandas(frame[column.name], type=column.type)
            # Whatever type pandas gave to nothing.
            if column.name in frame and not frame[column.name].isna().all()
            else pa.nulls(len(frame), column.type)
            for column in self.columns
        ]
        return pa.table(dict(zip(self.names, arrays, strict=True)), schema=self.schema)

    def to_pandas(self, table: pa.Table) -> pd.DataFrame:
        """The table with nullable pandas types, so that null is never mistaken for NaN or 0."""
        frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
        return frame


_STR, _F64, _I64, _BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()
_PANDAS_TYPES: Final = {_STR: pd.StringDtype(), _I64: pd.Int64Dtype(), _BOOL: pd.BooleanDtype()}

OUTCOMES: Final = ("ok", "error", "timeout", "dropped")
"""What becomes of a planned arrival. Every one has exactly one of these."""

ROLES: Final = ("warmup", "baseline", "traffic")
"""``baseline`` rows are the idle answers that loaded ones are compared with; ``warmup`` rows are
recorded and left out of every check."""

_PLAN = (
    Column("request_id", _STR, "plan", "`x-request-id` sent with the request; unique in the run"),
    Column("trace_id", _STR, "plan", "W3C trace id, 32 hex digits"),
    Column("span_id", _STR, "plan", "id of the client's span, 16 hex digits"),
    Column(
        "due_s",
        _F64,
        "plan",
        "when the request is to be sent, seconds since the run's start. Of a later turn of a "
        "conversation: in the plan the earliest moment, as if earlier answers took no time; in the "
        "requests when it became due",
    ),
    Column("phase", _STR, "plan", "name of the scenario's phase"),
    Column("role", _STR, "plan", "`warmup`, `baseline` (idle) or `traffic`"),
    Column("tenant", _STR, "plan", "name of the tenant"),
    Column("prompt_id", _STR, "plan", "id of the prompt in `prompts.jsonl`"),
    Column("family", _STR, "plan", "the prompt's family, e.g. `qa` or `tool_call`"),
    Column("prefix_group", _STR, "plan", "prompts of one group share a prefix; null: none shared"),
    Column("session_id", _STR, "plan", "the conversation that the prompt is a turn of, or null"),
    Column("turn", _I64, "plan", "which turn of its conversation, from 0, or null"),
    Column("pin", _STR, "plan", "replica asked for: `rank:<n>` or a replica id; null: any"),
    Column("model", _STR, "plan", "model or LoRA adapter asked for; null: the run's own"),
    Column(
        "conversation_id",
        _STR,
        "plan",
        "of a user who converses: `request_id` of the first turn; null outside of `sessions`",
    ),
    Column("next_id", _STR, "plan", "request that is the conversation's next turn; null: none"),
    Column(
        "think_s",
        _F64,
        "plan",
        "a later turn is due so long after the answer before it ended; null: due at `due_s`",
    ),
    Column(
        "history",
        _STR,
        "plan",
        "`answers`: its history holds the model's own answers in this conversation; null: the "
        "prompt's own",
    ),
    Column(
        "cancel_after_s",
        _F64,
        "plan",
        "the client is to hang up so long after the first token: no E2E, no scores; null: it waits "
        "for the end",
    ),
    Column("step", _I64, "plan", "which step of a stepped phase, from 1; null: of no step"),
    Column(
        "content_id",
        _STR,
        "plan",
        "rows of one id asked the same: a prompt padded to one length with the same text; null: "
        "the prompt as it stands, so `prompt_id` says it",
    ),
    Column("input_tokens", _I64, "plan", "prompt length asked for (a trace's); null: as it stands"),
    Column(
        "max_tokens", _I64, "plan", "limit of this answer; null: the prompt's or the scenario's"
    ),
    Column(
        "min_tokens", _I64, "plan", "length that this answer is forced to; null: it ends itself"
    ),
    Column(
        "prefix_blocks",
        pa.list_(_I64),
        "plan",
        "blocks that a padded prompt begins with; the same first ids are the same text",
    ),
    Column("block_tokens", _I64, "plan", "tokens of one of `prefix_blocks`"),
)

_LOAD = (
    Column("outcome", _STR, "load", "`ok`, `error`, `timeout` or `dropped`"),
    Column(
        "error_type", _STR, "load", "kind of failure, e.g. `http_503`, `stream_cut`; null if ok"
    ),
    Column("error_detail", _STR, "load", "what was found, shortened; null if ok"),
    Column(
        "cancelled",
        _BOOL,
        "load",
        "the client hung up in mid-stream, as planned: `ok`, with the text up to there; null: not "
        "sent",
    ),
    Column("http_status", _I64, "load", "HTTP status, null where none arrived"),
    Column("retry_after_s", _F64, "load", "the response's Retry-After"),
    Column("sent_s", _F64, "load", "when the request was handed to the socket"),
    Column(
        "resent_s",
        _F64,
        "load",
        "when it was sent again, the server having closed the kept connection just before; "
        "null: sent once",
    ),
    Column("connected_s", _F64, "load", "when its connection was open; null: it was open before"),
    Column("first_byte_s", _F64, "load", "when the response's first byte arrived"),
    Column("first_token_s", _F64, "load", "when the first token's chunk arrived"),
    Column("end_s", _F64, "load", "when the response ended, whatever its outcome"),
    Column("parsed_s", _F64, "load", "when the client had taken the answer apart"),
    Column(
        "read_delay_s",
        _F64,
        "load",
        "how long the first token's bytes, or the last ones, had been at this machine before the "
        "client read them; in none of the times where the kernel stamps arrivals",
    ),
    Column(
        "client_delay_s",
        _F64,
        "load",
        "this client's own part of `ttft_due_s` and `e2e_due_s`: lateness, handing the request "
        "to the system, `read_delay_s` where arrivals are not stamped, and how much earlier a "
        "first token may have come that was read together with the next",
    ),
    Column("itl_s", pa.list_(_F64), "load", "gaps between content chunks (inter-token latency)"),
    Column("finish_reason", _STR, "load", "as reported: `stop`, `length`, `tool_calls`, …"),
    Column("output_text", _STR, "load", "the answer's text, whole, also of a stream that was cut"),
    Column("tool_calls", _STR, "load", "JSON list of {name, arguments (a string)}; null: none"),
    Column("prompt_tokens", _I64, "load", "from the response's usage; null where not reported"),
    Column("cached_tokens", _I64, "load", "prompt tokens served from the prefix cache, from usage"),
    Column("output_tokens", _I64, "load", "from the response's usage"),
    Column(
        "logprob_mean", _F64, "load", "mean log probability of the tokens, where asked for and told"
    ),
    Column("engine_queue_s", _F64, "load", "wait in the engine's queue, as the response says"),
    Column(
        "engine_prefill_s", _F64, "load", "from scheduling to the first token, as the response says"
    ),
    Column("response_id", _STR, "load", "the response's own id"),
    Column("in_flight", _I64, "load", "this run's other requests in flight when it was sent"),
)

_OBSERVE = (
    Column("replica_id", _STR, "observe", "the replica that answered"),
    Column("replica_rank", _I64, "observe", "its rank in the deployment"),
    Column("node_id", _STR, "observe", "the node it ran on"),
    Column("replica_age_s", _F64, "observe", "its age when the request arrived"),
    Column("queue_depth", _F64, "observe", "requests it already held when this one arrived"),
    Column("cluster_queue_depth", _F64, "observe", "requests the whole deployment already held"),
    Column("replica_count", _F64, "observe", "running replicas when the request arrived"),
    Column("kv_cache_usage", _F64, "observe", "share of its KV cache in use, 0..1"),
    Column("router_queue_depth", _F64, "observe", "requests the router held without a replica"),
    Column("router_wait_s", _F64, "observe", "from the ingress to the replica beginning with it"),
    Column("server_latency_s", _F64, "observe", "latency that the replica's access log states"),
    Column("ingress_latency_s", _F64, "observe", "the same of the ingress before it, if any"),
    Column("proxy_latency_s", _F64, "observe", "latency that the proxy's access log states"),
    Column("observed_by", _STR, "observe", "where the placement is from: `probe`, `ray`, `client`"),
)

_DERIVED = (
    Column("late_s", _F64, "derived", "sent − due: the load generator's own delay"),
    Column("ttft_due_s", _F64, "derived", "time to first token from *due*: what a user feels"),
    Column("ttft_sent_s", _F64, "derived", "time to first token from *sent*: what the server did"),
    Column(
        "e2e_due_s", _F64, "derived", "end to end from *due*; null where the client was to hang up"
    ),
    Column("e2e_sent_s", _F64, "derived", "end to end from *sent*; null likewise"),
    Column("tpot_s", _F64, "derived", "(end − first token) / (output tokens − 1)"),
    Column("cache_hit_ratio", _F64, "derived", "cached tokens / prompt tokens"),
    Column("saturation", _F64, "derived", "requests in the cluster per running replica at arrival"),
    Column(
        "saturation_basis",
        _STR,
        "derived",
        "what `saturation` is of: `cluster`, `replica` (its own depth) or `client` (in flight)",
    ),
    Column("saturation_bucket", _STR, "derived", "`idle`, `warm`, `saturating`, `scaling`"),
    Column("cache_bucket", _STR, "derived", "`low`, `medium`, `high`"),
    Column("traffic_pattern", _STR, "derived", "`steady`, `burst`, `sustained`, by window"),
    Column(
        "leaked",
        _BOOL,
        "derived",
        "due while what an earlier phase or step left over kept the cluster busier than this one",
    ),
    Column(
        "cold",
        _BOOL,
        "derived",
        "among the first requests that its replica answered, and slower than its later ones are "
        "at the same load and prompt length",
    ),
)

_NEEDED = ("request_id", "due_s", "phase", "role", "tenant", "prompt_id")

PLAN: Final = Table("plan.parquet", "one row per planned arrival", _PLAN, _NEEDED)

REQUESTS: Final = Table(
    "requests.parquet",
    "one row per planned arrival, whatever became of it",
    _PLAN + _LOAD + _OBSERVE + _DERIVED,
    (*_NEEDED, "outcome", "output_text", "saturation_bucket", "cache_bucket"),
)

CLUSTER: Final = Table(
    "cluster.parquet",
    "one row per sample of one metric, of one replica or of the deployment",
    (
        Column("t_s", _F64, "observe", "seconds since the run's start"),
        Column("source", _STR, "observe", "`dashboard`, `metrics`, `logs`, `probe` or `client`"),
        Column("deployment", _STR, "observe", "Serve deployment, null where not known"),
        Column("replica_id", _STR, "observe", "replica, null where it is of the deployment"),
        Column("metric", _STR, "observe", "one of the metric names below"),
        Column("value", _F64, "observe", "the sample, in the metric's unit"),
        Column("label", _STR, "observe", "for states: the state's name"),
    ),
    ("t_s", "metric", "value"),
)

SCORES: Final = Table(
    "scores.parquet",
    "one row per request and scorer that applies to its prompt",
    (
        Column("request_id", _STR, "derived", "the request"),
        Column("scorer", _STR, "derived", "name of the scorer: the rubric"),
        Column("version", _STR, "derived", "version of the scorer"),
        Column("status", _STR, "derived", "`scored`, `unscored` (no answer came) or `failed`"),
        Column("value", _F64, "derived", "0..1, higher is better; null unless scored"),
        Column("reason", _STR, "derived", "why: what was wrong, or why there is no score"),
    ),
    ("request_id", "scorer", "status", "value"),
)

TABLES: Final = (PLAN, REQUESTS, CLUSTER, SCORES)


@dataclass(frozen=True)
class ClusterMetric:
    """One metric of ``cluster.parquet``.

    ``kind``: a ``gauge`` is a level at ``t_s``; a ``counter`` is a total since the replica's start,
    of which only differences mean something (a smaller value than before is a restart); an
    ``event`` happened at ``t_s`` and has the value 1; a ``duration`` ended at ``t_s``.
    """

    kind: Literal["gauge", "counter", "event", "duration"]
    unit: str
    meaning: str


CLUSTER_METRICS: Final[dict[str, ClusterMetric]] = {
    "replicas_running": ClusterMetric("gauge", "replicas", "replicas that take requests"),
    "replicas_starting": ClusterMetric("gauge", "replicas", "replicas being started"),
    "replicas_stopping": ClusterMetric("gauge", "replicas", "replicas being stopped"),
    "target_replicas": ClusterMetric("gauge", "replicas", "what the autoscaler asks for"),
    "target_ongoing_requests": ClusterMetric(
        "gauge", "requests", "the deployment's autoscaling target, requests per replica"
    ),
    "max_replicas": ClusterMetric("gauge", "replicas", "as many as the autoscaler may ask for"),
    "replica_state": ClusterMetric(
        "gauge", "1", "1 while the replica is in the state that `label` names"
    ),
    "replica_started": ClusterMetric("event", "1", "a replica finished initialising"),
    "replica_died": ClusterMetric("event", "1", "a replica was first seen dead"),
    "replica_start_s": ClusterMetric(
        "duration",
        "s",
        "how long a replica took to initialise: its log's two lines, or else from "
        "its actor's creation to the first sample that shows it running",
    ),
    "replica_first_token_s": ClusterMetric(
        "duration",
        "s",
        "from a replica's start, begun during the run, to the first token that a "
        "request got from it; waiting for a request is in it",
    ),
    "queue_depth": ClusterMetric(
        "gauge", "requests", "requests in the deployment, or held by the replica"
    ),
    "kv_cache_usage": ClusterMetric(
        "gauge", "ratio", "share of the KV cache that running requests hold, 0..1"
    ),
    "engine_running": ClusterMetric("gauge", "requests", "requests in the engine's batch"),
    "engine_waiting": ClusterMetric("gauge", "requests", "requests in the engine's queue"),
    "preemptions": ClusterMetric(
        "counter", "requests", "requests thrown out of the batch because the KV cache was full"
    ),
    "prefix_cache_queries": ClusterMetric(
        "counter", "tokens", "prompt tokens looked up in the prefix cache"
    ),
    "prefix_cache_hits": ClusterMetric("counter", "tokens", "prompt tokens found there"),
}
"""Metric names of ``cluster.parquet``."""

RESPONSE_FIELDS: Final = tuple(column.name for column in _LOAD)
"""What the load engine records of an arrival, beside its ``request_id``."""


def bucket(values: pd.Series, edges: dict[str, float], lowest: str) -> pd.Series:
    """Name of the bucket of each value: the last edge that it reaches; null stays null.

    Args:
        values: float values, null where not observed.
        edges: bucket name → lower edge (inclusive), ascending.
        lowest: name of the bucket below the first edge.
    """
    names = [lowest, *edges]
    cuts = [-float("inf"), *edges.values(), float("inf")]
    return pd.cut(values.astype("Float64").astype(float), cuts, right=False, labels=names).astype(
        "string"
    )
