"""A sweep: every prompt of a set in turn, in an order that neither loads nor empties a cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from clustereval.core.prompts import PromptLibrary
from clustereval.core.scenario import Phase, Tenant
from clustereval.core.scenario_file import LoadedScenario
from clustereval.core.seeds import substream
from clustereval.load.users import all_models

_SWEEP_LANES: Final = 8
"""Prefix groups that a sweep visits in turns."""


def sweep_order(loaded: LoadedScenario, name: str, seed: int) -> list[str]:
    """The set's prompts, a few whole prefix groups and conversations at a time, in turns.

    In file order the long answers of one family would come in a row and load an idle cluster;
    shuffled one by one, neighbours of a prefix would lose it from the cache.
    """
    units: dict[str, list[str]] = {}
    for prompt_id in loaded.sets[name]:
        prompt = loaded.prompts[prompt_id]
        units.setdefault(prompt.prefix_group or prompt.session_id or prompt_id, []).append(
            prompt_id
        )
    groups = list(units.values())
    lanes: list[list[str]] = [[] for _ in range(_SWEEP_LANES)]
    for index in substream(seed, "sweep", name).permutation(len(groups)):
        min(lanes, key=len).extend(groups[index])
    turns = zip_longest(*lanes)
    ids = [prompt_id for turn in turns for prompt_id in turn if prompt_id is not None]
    return in_turn_order(ids, loaded.prompts)


def in_turn_order(ids: list[str], prompts: PromptLibrary) -> list[str]:
    """``ids`` with each conversation's turns put in order, in the places that they held."""
    places: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(ids):
        session = prompts[prompt_id].session_id
        if session is not None:
            places.setdefault(session, []).append(place)
    ordered = list(ids)
    for held in places.values():
        turns = sorted((ids[place] for place in held), key=lambda name: prompts[name].turn or 0)
        for place, prompt_id in zip(held, turns, strict=True):
            ordered[place] = prompt_id
    return ordered


def sweep_models(tenants: Sequence[Tenant], prompts: str) -> dict[str | None, list[Tenant]]:
    """Every model that a sweep of the set ``prompts`` asks, with the tenants that may send it.

    Those are the tenants with a share that send the set and ask for the model; all with a share
    where nobody sends it. A model that only tenants with a rate of their own ask for is swept for
    them: their answers, too, are compared with idle ones.
    """
    mine = [t for t in tenants if t.prompts is None or prompts in t.prompts]
    sharing = [t for t in tenants if t.share is not None]
    senders = [t for t in mine if t.share is not None] or sharing
    own = [t for t in mine if t.share is None]
    return {
        model: [t for t in senders if _asks(t, model)] or [t for t in own if _asks(t, model)]
        for model in all_models([*senders, *own])
    }


def _asks(tenant: Tenant, model: str | None) -> bool:
    return model in (tenant.models or (None,))


def sweep_length_s(loaded: LoadedScenario, phase: Phase) -> float:
    """How long a sweep lasts: its rate is per replica where pinned, so ranks do not matter."""
    assert phase.sweep is not None
    models = sweep_models(loaded.scenario.tenants, phase.sweep.prompts)
    asked = len(loaded.sets[phase.sweep.prompts]) * len(models) * phase.sweep.repeats
    return asked / phase.sweep.rate
