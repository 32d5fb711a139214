"""The derived columns of the requests table. Null where an operand is null, never zero."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clustereval.core.columns import bucket
from clustereval.core.in_flight import MAX_IN_FLIGHT, PROCESS_IN_FLIGHT
from clustereval.core.inputs import to_be_cancelled
from clustereval.core.scenario import Buckets
from clustereval.core.sessions import TURN_FAILED
from clustereval.observe.handover import leaked
from clustereval.observe.warmth import cold


def count_in_flight(frame: pd.DataFrame) -> None:
    """Puts into ``in_flight``, in place, how many other requests of the run were in flight when
    each was sent: several load processes know their own only.

    Args:
        frame: load columns; a row that was not sent counts at its end.
    """
    sent, end = frame["sent_s"], frame["end_s"]
    both = sent.notna() & end.notna()
    begun, ended = np.sort(sent[both].to_numpy(float)), np.sort(end[both].to_numpy(float))
    known = frame["in_flight"].notna() & end.notna()
    at = sent.fillna(end)[known].to_numpy(float)
    others = np.searchsorted(begun, at, "right") - np.searchsorted(ended, at, "right")
    frame.loc[known, "in_flight"] = np.maximum(others - sent.notna()[known].to_numpy(int), 0)


def name_full_processes(frame: pd.DataFrame, max_in_flight: int) -> None:
    """Names, in place, the arrivals that one load process had no room for though all together had,
    and the turns that were lost with them: the target has no part in it.

    Args:
        frame: load columns, ``in_flight`` counted over all processes.
        max_in_flight: of the scenario.
    """
    told = frame["error_type"].eq(MAX_IN_FLIGHT).fillna(False).astype(bool)
    ours = told & (frame["in_flight"] < max_in_flight).fillna(False).astype(bool)
    if not ours.any():
        return
    count = frame.loc[ours, "in_flight"].astype(str)
    frame.loc[ours, "error_detail"] = (
        "its process was full with " + count + f" in flight in all, max_in_flight {max_in_flight}"
    )
    frame.loc[ours, "error_type"] = PROCESS_IN_FLIGHT
    # After the first turn that is lost, all of a conversation's are, for the same reason.
    talks = frame.loc[ours, "conversation_id"].dropna().unique()
    turns = frame["conversation_id"].isin(talks) & frame["error_type"].eq(TURN_FAILED).fillna(False)
    frame.loc[turns.astype(bool), "error_type"] = PROCESS_IN_FLIGHT


def add_derived(frame: pd.DataFrame, buckets: Buckets) -> None:
    """Adds times, ratios, saturation and buckets to ``frame`` in place.

    Args:
        frame: plan, load and observe columns with nullable types; one row per arrival.
        buckets: the scenario's edges.
    """
    first, end = frame["first_token_s"], frame["end_s"]
    frame["late_s"] = frame["sent_s"] - frame["due_s"]
    frame["ttft_due_s"] = first - frame["due_s"]
    frame["ttft_sent_s"] = first - frame["sent_s"]
    # Where the client was to hang up, the end is either its doing or that of a fast answer.
    whole = end.mask(to_be_cancelled(frame))
    frame["e2e_due_s"] = whole - frame["due_s"]
    frame["e2e_sent_s"] = whole - frame["sent_s"]
    # Of one token, or of none, there is no time *per further* token.
    further = (frame["output_tokens"] - 1).astype("Float64")
    frame["tpot_s"] = (end - first) / further.where(further > 0)
    prompt = frame["prompt_tokens"].astype("Float64")
    ratio = frame["cached_tokens"].astype("Float64") / prompt.where(prompt > 0)
    # More cached than there were is a usage that cannot be believed.
    frame["cache_hit_ratio"] = ratio.where(ratio.between(0, 1))
    _add_saturation(frame)
    edges = buckets.saturation
    frame["saturation_bucket"] = bucket(
        frame["saturation"],
        {"warm": edges.warm, "saturating": edges.saturating, "scaling": edges.scaling},
        "idle",
    )
    hit = buckets.cache_hit
    # "high > 0.85, medium > 0.55": a ratio that equals an edge belongs below it.
    cuts = {"medium": _just_above(hit.medium), "high": _just_above(hit.high)}
    frame["cache_bucket"] = bucket(frame["cache_hit_ratio"], cuts, "low")


def add_marks(frame: pd.DataFrame) -> None:
    """Adds ``leaked`` and ``cold`` to ``frame`` in place, once its other columns are derived."""
    frame["leaked"] = leaked(frame)
    frame["cold"] = cold(frame)


def _just_above(edge: float) -> float:
    return edge + 1e-12


def _add_saturation(frame: pd.DataFrame) -> None:
    """Requests per running replica at arrival, from the best that is known of each row."""
    count = frame["replica_count"].where(frame["replica_count"] > 0)
    in_flight = frame["in_flight"].astype("Float64")
    cluster = frame["cluster_queue_depth"] / count
    client = (in_flight / count).fillna(in_flight)
    frame["saturation"] = cluster.fillna(frame["queue_depth"]).fillna(client)
    basis = pd.Series(pd.NA, index=frame.index, dtype="string")
    basis[client.notna()] = "client"
    basis[frame["queue_depth"].notna()] = "replica"
    basis[cluster.notna()] = "cluster"
    frame["saturation_basis"] = basis
