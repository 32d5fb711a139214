"""Requests and cluster samples of a run in virtual time, as the tables of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from clustereval.core.columns import CLUSTER, PLAN, REQUESTS
from clustereval.core.errors import ScenarioError
from clustereval.core.inputs import same_input
from clustereval.core.prompts import Prompt, PromptLibrary
from clustereval.core.scenario import Scenario
from clustereval.core.seeds import substream
from clustereval.observe.derive import add_derived, add_marks
from clustereval.observe.patterns import traffic_patterns
from clustereval.simulate.padded import asked_prompts
from clustereval.simulate.settings import Settings
from serve_apps.simulated import fleet
from serve_apps.simulated.answers import Answer
from serve_apps.simulated.fleet import state
from serve_apps.simulated.fleet.workload import Asked, asked_of, workload
from serve_apps.simulated.prompts import kv_blocks
from serve_apps.simulated.settings import AppSettings, EngineSettings
from serve_apps.simulated.tokens import chance

DEPLOYMENT: Final = "virtual"
NODE: Final = "virtual-0"
ENDS: Final[dict[int, tuple[str, str | None]]] = {
    state.OK: ("ok", None),
    state.TIMEOUT: ("timeout", "timeout"),
    state.STALLED: ("timeout", "stall"),
    state.HTTP_500: ("error", "http_500"),
    state.HTTP_503: ("error", "http_503"),
    state.CUT: ("error", "stream_cut"),
    state.NO_REPLICA: ("error", "http_503"),
    state.DROPPED: ("dropped", "max_in_flight"),
}
"""How the fleet's requests end, as outcome and ``error_type``."""


def simulated_tables(
    scenario: Scenario,
    library: PromptLibrary,
    plan: pd.DataFrame,
    settings: Settings,
    faults: Mapping[str, float],
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The requests table, one row per row of ``plan``, and the cluster table."""
    contents = same_input(plan)
    used = sorted(set(contents))
    prompts = asked_prompts(plan, library, seed)
    golden = contents.drop_duplicates().index
    names = dict(zip(contents[golden], plan["prompt_id"][golden], strict=True))
    asked = asked_of(
        prompts,
        block_tokens=settings.engine.block_tokens,
        max_tokens=scenario.request.max_tokens,
        skew=faults.get("replica_skew", 0.0),
    )
    engine = replace(
        settings.engine,
        kv_blocks=kv_blocks(settings.engine, library, fleet.kv_ratio(faults)),
    )
    _require_room(prompts, asked, engine)
    number = pd.Categorical(contents, categories=used).codes.astype(np.int64)
    tenants = pd.factorize(plan["tenant"])[0]
    pin = plan["pin"].str.removeprefix("rank:").astype("Int64").fillna(state.NONE)
    due = plan["due_s"].to_numpy(dtype=float)
    difficulty = np.array([chance("accuracy", names[name], settings.prompts_of) for name in used])
    work = workload(
        asked,
        due,
        number,
        rng=substream(seed, "fleet"),
        tenant=tenants,
        pin=np.asarray(pin, dtype=np.int64),
        right=settings.quality.right(difficulty, number, due, substream(seed, "quality")),
        faulty=bool(faults),
    )
    client = fleet.Client(
        timeout_s=scenario.request.timeout_s,
        stall_s=scenario.request.stall_s or np.inf,
        max_in_flight=scenario.request.max_in_flight,
        sample_s=scenario.observe.sample_interval_s,
    )
    outcome = fleet.simulate(work, fleet.Deployment(engine, settings.app, faults), client)
    frame = _requests(plan, outcome.requests, _Texts(used, asked))
    add_derived(frame, scenario.buckets)
    frame["traffic_pattern"] = traffic_patterns(
        frame, scenario, settings.app.target_ongoing_requests
    )
    add_marks(frame)
    # What no fleet tells, conform() makes null.
    told = [name for name in REQUESTS.names if name in frame]
    requests = REQUESTS.to_pandas(REQUESTS.conform(frame[told]))
    return requests, _cluster(outcome, settings.app)


def _require_room(prompts: Sequence[Prompt], asked: Asked, engine: EngineSettings) -> None:
    tokens, most = asked.prompts["tokens"], asked.prompts["max_tokens"]
    total = tokens + most
    room = min(engine.context_tokens, (engine.kv_blocks or 0) * engine.block_tokens)
    if (total > room).any():
        worst = int(total.argmax())
        raise ScenarioError(
            f"prompt {prompts[worst].id!r}: {tokens[worst]} tokens, and {most[worst]} to generate",
            expected=f"at most {room} together (engine.context_tokens, engine.kv_blocks)",
            change="lower max_tokens, or --setting engine.context_tokens=…",
        )


@dataclass(frozen=True)
class _Texts:
    """What was answered, from the few answers that there are to each prompt."""

    names: Sequence[str]
    asked: Asked

    def of(self, o: state.Records) -> pd.DataFrame:
        """Columns ``output_text``, ``tool_calls`` and ``finish_reason``; null where none came."""
        kinds = pd.DataFrame(
            {name: o[name] for name in ("prompt", "base", "form", "output_tokens")}
        ).assign(ok=o["end"] == state.OK)
        code = kinds.groupby(list(kinds.columns), sort=False).ngroup().to_numpy()
        _, first = np.unique(code, return_index=True)
        made = [self._answer(*row) for row in kinds.iloc[first].itertuples(index=False)]
        drawn = pd.DataFrame(made, columns=["output_text", "tool_calls", "finish_reason"])
        return drawn.astype("string").iloc[code].reset_index(drop=True)

    def _answer(
        self, prompt: int, base: int, form: int, tokens: int, ok: bool
    ) -> tuple[str | None, str | None, str | None]:
        if tokens == 0:
            return None, None, None
        whole = self.asked.answers[self.names[prompt], base]
        said = _formed(whole, form).tokens[:tokens]
        length = form == state.HALF or len(_formed(whole, form).tokens) > tokens
        finish = "length" if length else whole.finish_reason
        text = "".join(said)
        if whole.tool_name is not None:
            call = json.dumps([{"name": whole.tool_name, "arguments": text}])
            return "", call, finish if ok else None
        return text, None, finish if ok else None


def _formed(answer: Answer, form: int) -> Answer:
    if form != state.ENDLESS:
        return answer
    start = answer.tokens[: len(answer.tokens) // 2 + 1]
    return replace(answer, tokens=start + start[-1:] * 100_000)


def _requests(plan: pd.DataFrame, o: state.Records, texts: _Texts) -> pd.DataFrame:
    """Plan, load and observe columns, with nullable types."""
    ends = np.array([ENDS.get(code, ("dropped", None)) for code in range(max(ENDS) + 1)])
    placed = ~np.isnan(o["kv_usage"])
    sent = o["end"] != state.DROPPED
    spoke = (o["output_tokens"] > 0) & ~np.isin(o["end"], (state.HTTP_500, state.HTTP_503))
    due = plan["due_s"].to_numpy(dtype=float)

    def where(values: Any, mask: np.ndarray, dtype: Any) -> pd.Series:
        known: pd.Series = pd.Series(values, index=plan.index).astype(dtype).where(mask)
        return known

    status = np.select([np.isin(o["end"], (state.HTTP_500,)), ~sent], [500, 0], 200)
    status = np.where(np.isin(o["end"], (state.HTTP_503, state.NO_REPLICA)), 503, status)
    replica = pd.Series(o["replica"]).astype(str) + "#" + pd.Series(o["incarnation"]).astype(str)
    said = texts.of(o)
    said.index = plan.index
    columns = {
        "outcome": pd.Series(ends[o["end"], 0], index=plan.index).astype("string"),
        "error_type": pd.Series(ends[o["end"], 1], index=plan.index).astype("string"),
        "error_detail": pd.Series(pd.NA, index=plan.index, dtype="string"),
        "cancelled": where(False, sent, "boolean"),
        "http_status": where(status, sent & ((status != 200) | spoke), "Int64"),
        "retry_after_s": pd.Series(pd.NA, index=plan.index, dtype="Float64"),
        "sent_s": where(due, sent, "Float64"),
        "first_token_s": where(o["first_token_s"], spoke, "Float64"),
        "end_s": where(o["end_s"], ~np.isnan(o["end_s"]), "Float64"),
        "itl_s": pd.Series(None, index=plan.index, dtype=object),
        "finish_reason": said["finish_reason"],
        "output_text": said["output_text"].where(spoke),
        "tool_calls": said["tool_calls"].where(spoke),
        "prompt_tokens": where(texts.asked.prompts["tokens"][o["prompt"]], spoke, "Int64"),
        "cached_tokens": where(o["cached_tokens"], spoke, "Int64"),
        "output_tokens": where(o["output_tokens"], spoke, "Int64"),
        "engine_queue_s": pd.Series(pd.NA, index=plan.index, dtype="Float64"),
        "engine_prefill_s": pd.Series(pd.NA, index=plan.index, dtype="Float64"),
        "response_id": pd.Series(pd.NA, index=plan.index, dtype="string"),
        "in_flight": where(o["cluster_depth"], sent, "Int64"),
        "replica_id": where("replica-" + replica, placed, "string"),
        "replica_rank": where(o["replica"], placed, "Int64"),
        "node_id": where(np.full(len(plan), NODE), placed, "string"),
        "replica_age_s": where(o["age_s"], placed, "Float64"),
        "queue_depth": where(o["queue_depth"], placed, "Float64"),
        "cluster_queue_depth": where(o["cluster_depth"], sent, "Float64"),
        "replica_count": where(o["replica_count"], sent, "Float64"),
        "kv_cache_usage": where(o["kv_usage"], placed, "Float64"),
        "router_queue_depth": where(o["router_depth"], sent, "Float64"),
        "router_wait_s": where(o["router_wait_s"], placed, "Float64"),
        **{
            f"{name}_latency_s": pd.Series(pd.NA, index=plan.index, dtype="Float64")
            for name in ("server", "ingress", "proxy")
        },
        "observed_by": where(np.full(len(plan), "probe"), placed, "string"),
    }
    return plan[PLAN.names].assign(**columns)


def _cluster(outcome: fleet.Outcome, app: AppSettings) -> pd.DataFrame:
    samples, starts = outcome.samples, outcome.starts
    times, rows = samples["t_s"], len(samples)
    gauges = {
        "replicas_running": samples["running"],
        "replicas_starting": samples["starting"],
        "target_replicas": samples["target"],
        "queue_depth": samples["depth"],
        "target_ongoing_requests": np.full(rows, app.target_ongoing_requests),
        "max_replicas": np.full(rows, app.max_replicas),
    }
    parts = [
        pd.DataFrame({"t_s": times, "metric": name, "value": np.asarray(values, dtype=float)})
        for name, values in gauges.items()
    ]
    later = starts[starts["t_s"] > 0]
    replica = [f"replica-{start['replica']}#{start['incarnation']}" for start in later]
    for name, values in (
        ("replica_started", np.ones(len(later))),
        ("replica_start_s", later["took_s"]),
    ):
        parts.append(
            pd.DataFrame(
                {"t_s": later["t_s"], "metric": name, "value": values, "replica_id": replica}
            )
        )
    frame = pd.concat(parts, ignore_index=True).sort_values("t_s", kind="stable")
    frame = frame.assign(source="dashboard", deployment=DEPLOYMENT).reset_index(drop=True)
    return CLUSTER.to_pandas(CLUSTER.conform(frame))
