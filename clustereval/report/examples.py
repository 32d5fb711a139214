"""The worst answers, chosen and laid beside the idle answer to the same prompt.

A few hundred at most and within a budget of bytes, whatever the size of the run: the page must
open in under a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from rapidfuzz.distance import Levenshtein

from clustereval.core.findings import Findings, Status
from clustereval.core.inputs import same_input
from clustereval.core.prompts import Prompt, PromptLibrary
from clustereval.report.names import SEVERITY
from clustereval.report.numbers import number_or_none
from clustereval.report.plaintext import one_line, shortened, visible

MOST_EXAMPLES: Final = 240
BUDGET_BYTES: Final = 900_000
_ANSWER_CHARS: Final = 4_000
_PROMPT_CHARS: Final = 2_400
_DIFF_TOKENS: Final = 1_200
_TOKEN: Final = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Choice:
    """One request to show, and why: the checks whose evidence it is, or what is bad about it."""

    request_id: str
    checks: tuple[str, ...]
    why: str


def choose(
    requests: pd.DataFrame, values: pd.DataFrame | None, findings: Findings | None,
    most: int = MOST_EXAMPLES,
) -> list[Choice]:  # fmt: skip
    """Worst first: evidence of failed findings, then failures, low scores and slow answers.

    Each finding gives its worst before any gives its second worst, so that one long list of
    evidence does not hide the others.
    """
    known = set(requests.request_id)
    checks: dict[str, list[str]] = {}
    why: dict[str, str] = {}
    if findings is not None:
        ranked = sorted(findings.findings, key=lambda f: (SEVERITY[f.status], not f.gate))
        shown = [f for f in ranked if f.status in (Status.FAIL, Status.INCONCLUSIVE)] or ranked
        for depth in range(max((len(f.evidence) for f in shown), default=0)):
            for finding in shown:
                if depth < len(finding.evidence) and finding.evidence[depth] in known:
                    request_id = finding.evidence[depth]
                    checks.setdefault(request_id, [])
                    if finding.check not in checks[request_id]:
                        checks[request_id].append(finding.check)
                    why.setdefault(request_id, finding.sentence or finding.effect)
    for request_id, reason in _notable(requests, values):
        why.setdefault(request_id, reason)
    chosen = [Choice(key, tuple(checks.get(key, ())), text) for key, text in why.items()]
    return chosen[:most]


def _notable(requests: pd.DataFrame, values: pd.DataFrame | None) -> list[tuple[str, str]]:
    """Requests that are bad by themselves: a few of each kind of failure, score and slowness."""
    rows: list[tuple[str, str]] = []
    measured = requests[requests.role != "warmup"]
    failed = measured[measured.outcome != "ok"]
    kinds = failed.outcome + ": " + failed.error_type.fillna("no detail")
    for kind, part in failed.groupby(kinds):
        rows += [(key, f"failed, {kind}") for key in part.request_id.head(8)]
    if values is not None and len(values):
        low = values[values.value < 1].sort_values("value", kind="stable").head(40)
        rows += [
            (key, f"scored {value:.2f}")
            for key, value in zip(low.request_id, low.value, strict=True)
        ]
    slow = measured.nlargest(15, "e2e_due_s")
    return rows + [(key, "among the slowest answers") for key in slow.request_id]


def build(
    choices: Sequence[Choice], requests: pd.DataFrame, scores: pd.DataFrame | None,
    prompts: PromptLibrary | None, budget_bytes: int = BUDGET_BYTES,
) -> dict[str, Any]:  # fmt: skip
    """``{"items": [...], "prompts": {...}, "left_out": n}`` as the page embeds it."""
    wanted = [choice.request_id for choice in choices]
    found = requests[requests.request_id.isin(wanted)]
    found = found.assign(content=same_input(found))
    rows = {str(row["request_id"]): row for _, row in found.iterrows()}
    idle = idle_answers(requests, set(found.content), scores)
    mine: dict[Hashable, pd.DataFrame] = {}
    if scores is not None:
        mine = dict(iter(scores[scores.request_id.isin(wanted)].groupby("request_id")))
    items: list[dict[str, Any]] = []
    texts: dict[str, Any] = {}
    used = 0
    for choice in choices:
        row = rows[choice.request_id]
        item = _item(choice, row, mine.get(choice.request_id), idle)
        prompt = None
        prompt_id = str(row["prompt_id"])
        if item["prompt"] not in texts and prompts is not None and prompt_id in prompts:
            prompt = _prompt(prompts[prompt_id])
        size = len(json.dumps([item, prompt]))
        if used + size > budget_bytes:
            break
        used += size
        items.append(item)
        if prompt is not None:
            texts[item["prompt"]] = prompt
    return {"items": items, "prompts": texts, "left_out": len(choices) - len(items)}


def idle_answers(
    requests: pd.DataFrame, contents: set[str], scores: pd.DataFrame | None
) -> dict[str, list[dict[str, Any]]]:
    """Idle answers by what was asked (:func:`.same_input`), the best scored first."""
    content = same_input(requests)
    idle = requests[
        (requests.role == "baseline") & (requests.outcome == "ok") & content.isin(contents)
    ].copy()
    idle["content"] = content[idle.index]
    idle["mean"] = 0.0
    if scores is not None:
        done = scores[scores.status == "scored"]
        done = done[done.request_id.isin(idle.request_id)]
        idle["mean"] = idle.request_id.map(done.groupby("request_id").value.mean())
    idle = idle.sort_values(["mean", "due_s"], ascending=[False, True], kind="stable")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in idle.groupby("content").head(8).itertuples():
        found.setdefault(str(row.content), []).append(
            {"id": row.request_id, "replica": _text(row.replica_id), "text": answer_text(row)}
        )
    return found


def answer_text(row: Any) -> str | None:
    """What the model answered: text, then tool calls; null where nothing arrived."""
    parts = [
        str(part) for part in (row.output_text, row.tool_calls) if not pd.isna(part) and part != ""
    ]
    return "\n".join(parts) if parts else None


def _item(
    choice: Choice, row: pd.Series, scores: pd.DataFrame | None,
    idle: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:  # fmt: skip
    answer = answer_text(row)
    other = _counterpart(row, idle.get(str(row.content), []))
    left, right = marked(other["text"] if other else None, answer)
    return {
        "id": str(row.request_id),
        # The id itself is what a link names; what is shown of it is made visible first.
        "name": one_line(row.request_id),
        "checks": [one_line(name) for name in choice.checks],
        "why": visible(choice.why),
        "prompt": visible(row.prompt_id),
        "idle": left,
        "idleFrom": None if other is None else one_line(other["replica"] or ""),
        "answer": right,
        "outcome": str(row.outcome),
        "cancelled": _hung_up(row),
        "error": " · ".join(_known(row, ("error_type", "error_detail"))),
        "scores": [] if scores is None else [
            [one_line(s.scorer), str(s.status), number_or_none(s.value), _shown(s.reason, 300)]
            for s in scores.itertuples()
        ],
        **{key: _shown(row[key]) for key in (
            "replica_id", "saturation_bucket", "cache_bucket", "traffic_pattern", "tenant",
            "phase", "role", "family", "trace_id", "finish_reason", "node_id",
        )},
        **{key: _rounded(row[key]) for key in (
            "due_s", "ttft_due_s", "e2e_due_s", "queue_depth", "cluster_queue_depth",
            "replica_count", "replica_age_s", "saturation", "cache_hit_ratio", "prompt_tokens",
            "output_tokens", "kv_cache_usage", "router_wait_s", "engine_queue_s",
            "engine_prefill_s",
        )},
    }  # fmt: skip


def _hung_up(row: pd.Series) -> bool:
    value = row.get("cancelled")
    return not pd.isna(value) and bool(value)


def _counterpart(row: pd.Series, idle: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The idle answer to hold against this one; for an idle row, another replica's."""
    others = [item for item in idle if item["id"] != row.request_id]
    if row.role == "baseline":
        replica = _text(row.replica_id)
        others = [item for item in others if item["replica"] != replica] or others
    return others[0] if others else None


Marked = list[list[str]] | None


def marked(idle: str | None, answer: str | None) -> tuple[Marked, Marked]:
    """Both answers as ``[mark, text]`` runs; ``=`` in both, ``-`` only idle, ``+`` only loaded.

    A run stands for words, white space or signs, so that the difference reads as words. Answers
    beyond the size at which a diff pays are shown whole, unmarked.
    """
    left = None if idle is None else visible(shortened(idle, _ANSWER_CHARS))
    right = None if answer is None else visible(shortened(answer, _ANSWER_CHARS))
    if left is None or right is None:
        return (None if left is None else [["=", left]], None if right is None else [["=", right]])
    a, b = _TOKEN.findall(left), _TOKEN.findall(right)
    if len(a) > _DIFF_TOKENS or len(b) > _DIFF_TOKENS:
        return [["=", left]], [["=", right]]
    runs_a: list[list[str]] = []
    runs_b: list[list[str]] = []
    for step in Levenshtein.opcodes(a, b):
        same = step.tag == "equal"
        _extend(runs_a, "=" if same else "-", "".join(a[step.src_start : step.src_end]))
        _extend(runs_b, "=" if same else "+", "".join(b[step.dest_start : step.dest_end]))
    return runs_a, runs_b


def _extend(runs: list[list[str]], mark: str, text: str) -> None:
    if not text:
        return
    if runs and runs[-1][0] == mark:
        runs[-1][1] += text
    else:
        runs.append([mark, text])


def _prompt(prompt: Prompt) -> dict[str, Any]:
    each = _PROMPT_CHARS // max(1, min(3, len(prompt.messages)))
    kept = prompt.messages if len(prompt.messages) <= 3 else prompt.messages[-3:]
    reference = prompt.reference.model_dump(
        exclude_none=True, include={"answers", "json_value", "tool_call", "instructions", "text"}
    )
    if "json_value" not in reference and prompt.reference.json_schema is not None:
        reference["json_schema"] = prompt.reference.json_schema
    return {
        "messages": [[m.role, visible(shortened(m.content, each))] for m in kept],
        "earlier": len(prompt.messages) - len(kept),
        "reference": visible(
            shortened(json.dumps(reference, ensure_ascii=False, indent=1), _PROMPT_CHARS)
        )
        if reference
        else "",
    }


def _known(row: pd.Series, names: tuple[str, ...]) -> list[str]:
    return [one_line(row[name], 400) for name in names if not pd.isna(row[name])]


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _shown(value: Any, limit: int = 120) -> str | None:
    return None if pd.isna(value) else one_line(value, limit)


def _rounded(value: Any) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)
