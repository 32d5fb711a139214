"""What makes each row of a plan itself: its ids, and what its prompt says of it. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import pandas as pd

from clustereval.core.columns import PLAN
from clustereval.core.prompts import PromptLibrary
from clustereval.load.users import link_turns


def with_identity(plan: pd.DataFrame, prompts: PromptLibrary, salt: str) -> pd.DataFrame:
    """``plan`` with exactly the columns of :data:`PLAN`.

    Args:
        plan: in its final order. salt: makes ids unique between runs.
    """
    of: list[Any] = [prompts[prompt_id] for prompt_id in plan.prompt_id]
    digests = [hashlib.sha256(f"{salt}\x1f{index}".encode()).hexdigest() for index in plan.index]
    plan = plan.assign(
        request_id=[f"{salt}-{index:06d}" for index in plan.index],
        # All zeroes is the one invalid id (https://www.w3.org/TR/trace-context/#trace-id).
        trace_id=[f"{int(digest[:32], 16) or 1:032x}" for digest in digests],
        span_id=[f"{int(digest[32:48], 16) or 1:016x}" for digest in digests],
        family=[prompt.family for prompt in of],
        prefix_group=pd.array([prompt.prefix_group for prompt in of], dtype="string"),
        session_id=[prompt.session_id for prompt in of],
        turn=pd.array([prompt.turn for prompt in of], dtype="Int64"),
        step=plan["step"].astype("Int64"),
    )
    if "user" in plan:
        plan = link_turns(plan).drop(columns="user")
    # Behind filler, prompts of a group share no prefix any more.
    plan["prefix_group"] = plan["prefix_group"].where(plan["input_tokens"].isna())
    return PLAN.to_pandas(PLAN.conform(plan[[name for name in PLAN.names if name in plan]]))
