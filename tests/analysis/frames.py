"""Synthetic runs as frames, in memory."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clustereval.analysis.slices import Frames, build_frames
from clustereval.core.columns import CLUSTER, REQUESTS, SCORES
from tests.support import synthetic
from tests.support.prompts import tiny_library
from tests.support.synthetic import Effects

RUBRICS = ("correct", "degeneration", "fidelity", "fidelity_prefix", "truncation")


def synthetic_tables(
    effects: Effects | None = None,
    *,
    rows: int = 3000,
    replicas: int = 3,
    seed: int = 0,
    rubrics: tuple[str, ...] = RUBRICS,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(requests, scores, cluster) of a synthetic run, with the types that files give."""
    effects = effects or Effects()
    frame = synthetic.synthetic_requests(tiny_library(), rows, replicas, effects, seed)
    truth = frame.pop("truth")
    scores = synthetic._scores(frame, truth, rubrics)
    cluster = synthetic._cluster(frame, replicas, effects)
    return (
        REQUESTS.to_pandas(REQUESTS.conform(frame)),
        SCORES.to_pandas(SCORES.conform(scores)),
        CLUSTER.to_pandas(CLUSTER.conform(cluster)),
    )


def synthetic_frames(
    effects: Effects | None = None, *, scenario: dict[str, Any] | None = None, **size: Any
) -> Frames:
    """Frames of a synthetic run; ``scenario`` replaces keys of its scenario."""
    requests, scores, cluster = synthetic_tables(effects, **size)
    return build_frames(
        requests, scores, cluster, synthetic.scenario(**(scenario or {})), level="probe"
    )
