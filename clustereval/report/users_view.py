"""What users did beyond one request: conversations that went on or ended, clients that hung up."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clustereval.core.inputs import to_be_cancelled
from clustereval.core.sessions import TURN_FAILED
from clustereval.report.numbers import count, seconds
from clustereval.report.plaintext import one_line


def planned_users(plan: pd.DataFrame) -> dict[str, Any]:
    """What a plan has beside single requests that wait; empty where it has nothing of it.

    Returns:
        ``conversations`` and ``turns`` (of all of them), ``think_s`` (mean), ``to_cancel``, and
        ``models`` (name → requests).
    """
    said: dict[str, Any] = {}
    talks = plan["conversation_id"].dropna()
    if len(talks):
        said |= {"conversations": int(talks.nunique()), "turns": len(talks)}
        think_s = plan["think_s"].mean()
        said["think_s"] = None if pd.isna(think_s) else float(think_s)
    if (planned := int(to_be_cancelled(plan).sum())) > 0:
        said["to_cancel"] = planned
    if plan["model"].notna().any():
        said["models"] = {str(k): int(v) for k, v in plan["model"].value_counts().items()}
    return said


def users_lines(plan: pd.DataFrame) -> list[str]:
    """The same in words, a line each."""
    said = planned_users(plan)
    lines = []
    if "conversations" in said:
        each = said["turns"] / said["conversations"]
        text = f"conversations: {count(said['conversations'])}, of {each:.1f} turns"
        if said["think_s"] is not None:
            text += f", with {seconds(said['think_s'])} to think"
        lines.append(f"{text}; later turns are drawn at their earliest, as if answers took no time")
    if "to_cancel" in said:
        lines.append(f"clients that hang up in mid-stream: {count(said['to_cancel'])}")
    if "models" in said:
        named = (f"{one_line(name, 40)} {count(n)}" for name, n in said["models"].items())
        lines.append(f"models: {', '.join(named)}; the others ask for the run's own")
    return lines


def user_facts(requests: pd.DataFrame) -> list[tuple[str, str]]:
    """Labels and texts; none for a run whose users ask once and wait."""
    facts = []
    if "conversation_id" in requests and requests.conversation_id.notna().any():
        turns = requests[requests.conversation_id.notna()]
        talks = turns.conversation_id.nunique()
        cut = turns.conversation_id[turns.error_type == TURN_FAILED].nunique()
        text = f"{count(talks)}, of {len(turns) / talks:.1f} turns"
        if cut:
            text += f"; {count(cut)} ended early, since a turn got no answer"
        facts.append(("conversations", text))
    planned = to_be_cancelled(requests)
    if planned.any():
        hung_up = int(requests.cancelled.fillna(False).sum())
        facts.append(
            (
                "clients that hang up",
                f"{count(int(planned.sum()))} planned, {count(hung_up)} before the answer's end: "
                "they count for TTFT and failures, not for E2E and scores",
            )
        )
    return facts
