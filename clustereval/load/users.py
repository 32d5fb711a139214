"""What arrivals do beside asking one prompt: converse, hang up, ask for a model of their own.

Pure. Every draw comes from the generator given, row by row, so that more rows leave earlier ones as
they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from clustereval.core.errors import ScenarioError
from clustereval.core.prompts import PromptLibrary
from clustereval.core.scenario import Phase, Tenant
from clustereval.core.sessions import ANSWERS, Cancel, Sessions

Talk = tuple[str, ...]
"""The prompts of one conversation, in the order of their turns."""


def talks_of(ids: Iterable[str], prompts: PromptLibrary) -> list[Talk]:
    """The conversations among the prompts of a set, in file order; prompts of none are left out."""
    turns: dict[str, list[str]] = {}
    for prompt_id in ids:
        if (session := prompts[prompt_id].session_id) is not None:
            turns.setdefault(session, []).append(prompt_id)
    return [
        tuple(sorted(talk, key=lambda name: prompts[name].turn or 0)) for talk in turns.values()
    ]


def with_talks(
    mix: Mapping[str, float], talks: Mapping[str, Sequence[Talk]], tenant: Tenant, phase: Phase
) -> dict[str, float]:
    """The sets of a tenant's mix that hold conversations, with their weights.

    Raises:
        ScenarioError: none does.
    """
    kept = {name: weight for name, weight in mix.items() if talks[name]}
    if not kept:
        raise ScenarioError(
            f"phase {phase.name!r} has sessions, but tenant {tenant.name!r} has no conversation in "
            f"{', '.join(mix)}",
            expected="prompts with session_id and turn, as in prompts/sessions.jsonl",
            change="give the tenant a prompt set with conversations, or drop sessions",
        )
    return kept


def converse(users: pd.DataFrame, sessions: Sessions, rng: np.random.Generator) -> pd.DataFrame:
    """A row per turn of each user's conversation.

    ``due_s`` of a later turn is its earliest moment: the user's arrival and all think times up to
    it. What its answers take comes on top, so no turn is due before it; a replay that reads the
    plan in order of ``due_s`` meets each turn in time.

    Args:
        users: columns ``due_s``, ``talk`` (a :data:`Talk`), and any others, which each turn gets.

    Returns:
        ``prompt_id``, ``think_s`` and ``history`` in place of ``talk``, and ``user`` (which row of
        ``users``), in the order of users and turns.
    """
    counts = [len(talk) for talk in users["talk"]]
    turns = users.loc[users.index.repeat(counts)].drop(columns="talk").reset_index(drop=True)
    user = np.repeat(np.arange(len(users)), counts)
    first = np.ones(len(turns), dtype=bool)
    first[1:] = user[1:] != user[:-1]
    think_s = np.where(first, 0.0, _think_s(sessions, len(turns), rng))
    before = np.cumsum(think_s)
    waited = before - np.repeat(before[first], counts)
    return turns.assign(
        prompt_id=[name for talk in users["talk"] for name in talk],
        user=user,
        due_s=turns["due_s"].to_numpy(float) + waited,
        think_s=np.where(first, np.nan, think_s),
        history=pd.Series(
            ANSWERS if sessions.history == ANSWERS else None, index=turns.index, dtype=object
        ).mask(first, None),
    )


def _think_s(sessions: Sessions, count: int, rng: np.random.Generator) -> np.ndarray:
    """Gamma-distributed: shape 1/cv², so that mean and coefficient of variation are as stated."""
    # So small a spread cannot be told from none, but its shape could not be held by a float.
    if sessions.think_cv < 1e-6 or sessions.think_s == 0:
        return np.full(count, sessions.think_s)
    shape = sessions.think_cv**-2
    return rng.gamma(shape, sessions.think_s / shape, count)


def link_turns(plan: pd.DataFrame) -> pd.DataFrame:
    """``plan`` with ``conversation_id`` and ``next_id`` of each turn.

    Args:
        plan: columns ``request_id`` and ``user`` (null: no conversation), turns in order.
    """
    users = plan.groupby("user", sort=False)["request_id"]
    return plan.assign(conversation_id=users.transform("first"), next_id=users.shift(-1))


def hang_up_s(cancel: Cancel, count: int, rng: np.random.Generator) -> np.ndarray:
    """``cancel_after_s`` of each row: NaN for those that wait for the end."""
    draws = rng.random((count, 2))
    return np.where(draws[:, 0] < cancel.share, draws[:, 1] * cancel.within_s, np.nan)


def models_of(tenant: Tenant, count: int, rng: np.random.Generator) -> np.ndarray:
    """The model that each of a tenant's arrivals asks for; None: the run's own."""
    if tenant.models is None:
        return np.full(count, None, dtype=object)
    weights = np.array(list(tenant.models.values()))
    names = np.array(list(tenant.models), dtype=object)
    drawn: np.ndarray = names[rng.choice(len(names), count, p=weights / weights.sum())]
    return drawn


def naming_own_model(tenants: Iterable[Tenant], own: str) -> list[Tenant]:
    """The tenants, with the run's own model named where none is.

    A tenant may name it beside an adapter: it is one model, however it is asked for.
    """
    return [t if t.models else t.model_copy(update={"models": {own: 1.0}}) for t in tenants]


def all_models(tenants: Iterable[Tenant]) -> list[str | None]:
    """Every model that one of the tenants asks for, in their order; None: the run's own."""
    return list(dict.fromkeys(m for t in tenants for m in (t.models or (None,))))
