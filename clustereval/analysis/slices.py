"""The rows that checks compare: requests joined with their scores, warm-up left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clustereval.core.columns import CLUSTER, OUTCOMES, REQUESTS, SCORES
from clustereval.core.inputs import same_input, to_be_cancelled
from clustereval.core.looks import STOPPED_EARLY, Looks
from clustereval.core.scenario import Scenario
from clustereval.observe.patterns import window_codes
from clustereval.rundir import Run

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

SLICE_COLUMNS: Final = (
    "role",
    "phase",
    "tenant",
    "family",
    "pin",
    "outcome",
    "replica_id",
    "saturation_bucket",
    "cache_bucket",
    "traffic_pattern",
    "finish_reason",
)

UNREAD: Final = (
    "trace_id", "span_id", "error_detail", "output_text", "response_id", "prefix_blocks",
)  # fmt: skip
"""Columns that no check reads, and that weigh most in a large table."""

NOT_APPLICABLE, SCORED, UNSCORED, FAILED = 0, 1, 2, 3


@dataclass(frozen=True)
class Factor:
    """A column of names as codes: ``levels[code]``, -1 where null."""

    codes: Codes
    levels: tuple[str, ...]

    def among(self, names: Iterable[str]) -> Mask:
        wanted = [self.levels.index(name) for name in names if name in self.levels]
        mask: Mask = np.isin(self.codes, wanted)
        return mask

    @property
    def known(self) -> Mask:
        mask: Mask = self.codes >= 0
        return mask


@dataclass(frozen=True)
class Rubric:
    """One scorer's values, row by row.

    Attributes:
        value: shape (rows,), 0..1, NaN where there is no score (internal; never in a result).
        status: shape (rows,): not applicable, scored, unscored (no answer came) or failed.
    """

    value: Floats
    status: NDArray[np.int8]

    @property
    def attempted(self) -> Mask:
        mask: Mask = self.status != NOT_APPLICABLE
        return mask

    @property
    def scored(self) -> Mask:
        mask: Mask = self.status == SCORED
        return mask


@dataclass(frozen=True)
class Frames:
    """What every check reads; shapes are (rows,) with one row per request that is not warm-up.

    Attributes:
        rows: the requests table without warm-up, index 0..rows-1.
        factors: the columns that slices are made of, as codes.
        prompt: codes of the prompts: what answers are clustered by.
        content: codes of what was asked, to the letter: what answers are paired by. A prompt that
            was padded to another length is another content of the same prompt.
        window: codes of the windows of due time, cut as those of the traffic patterns are.
        rubrics: scorer → its values.
        cluster: cluster samples over time, possibly empty.
        scenario, level, load, interrupted, looks: from the manifest.
        cut_from_s: of a run that was cut short, when the first arrival was due that it cut off;
            what was due later has an answer only where that was fast. Null: it came to its end.
        counts: planned, ok, error, …, of the whole run.
    """

    rows: pd.DataFrame
    factors: Mapping[str, Factor]
    prompt: Codes
    content: Codes
    window: Codes
    rubrics: Mapping[str, Rubric]
    cluster: pd.DataFrame
    scenario: Scenario
    level: str | None = None
    load: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    looks: Looks | None = None
    cut_from_s: float | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, **slices: str | Sequence[str]) -> Mask:
        """Rows whose columns hold one of the given names; null never matches."""
        mask = np.ones(len(self), dtype=bool)
        for column, names in slices.items():
            wanted = [names] if isinstance(names, str) else names
            mask &= self.factors[column].among(wanted)
        return mask

    def levels(self, column: str, mask: Mask | None = None) -> list[str]:
        """Names that occur in a column (among the rows of ``mask``), sorted."""
        factor = self.factors[column]
        codes = factor.codes if mask is None else factor.codes[mask]
        present = np.unique(codes[codes >= 0])
        return sorted(factor.levels[code] for code in present)

    def numbers(self, column: str) -> Floats:
        """A numeric column as floats, NaN where null (internal)."""
        return self.rows[column].to_numpy(dtype=float, na_value=np.nan)

    def marked(self, column: str) -> Mask:
        """Where a column of marks says so; null, as of an older run, is no mark."""
        if column not in self.rows:
            return np.zeros(len(self), dtype=bool)
        mask: Mask = self.rows[column].fillna(False).to_numpy(dtype=bool)
        return mask

    @property
    def stepped(self) -> Mask:
        """Rows of stepped phases: some are meant to be too many, so they are judged by step."""
        if "step" not in self.rows:
            return np.zeros(len(self), dtype=bool)
        mask: Mask = self.rows["step"].notna().to_numpy(dtype=bool)
        return mask

    @property
    def traffic(self) -> Mask:
        """Loaded rows, but those of stepped phases."""
        return self.where(role="traffic") & ~self.stepped

    @cached_property
    def load_window(self) -> Codes:
        """Those of rows under load; -1 for all others."""
        return np.where(self.where(role="traffic"), self.window, -1)

    @property
    def baseline(self) -> Mask:
        """Idle rows that are idle: neither cold, nor met by what an earlier phase left over."""
        idle = self.where(role="baseline")
        return idle & ~self.marked("cold") & ~self.marked("leaked")

    @property
    def padded(self) -> Mask:
        """Rows whose prompt was changed to a trace's lengths: never the input that others had."""
        if "content_id" not in self.rows:
            return np.zeros(len(self), dtype=bool)
        return self.rows["content_id"].notna().to_numpy(dtype=bool)

    @property
    def ok(self) -> Mask:
        return self.where(outcome="ok")

    @property
    def hasty(self) -> Mask:
        """Rows whose client was to hang up, whether or not the answer came first."""
        mask: Mask = to_be_cancelled(self.rows).to_numpy(dtype=bool)
        return mask

    @property
    def whole(self) -> Mask:
        """Rows with a whole answer. Hasty ones are none of them, not even those whose answer came
        first: the slow ones among them are cut."""
        return self.ok & ~self.hasty

    def ids(self, order: Sequence[int] | Codes) -> list[str]:
        """Request ids of the rows at these positions."""
        return [str(name) for name in self.rows["request_id"].iloc[np.asarray(order, dtype=int)]]


def judged_requests(run: Run) -> pd.DataFrame:
    """The requests table without what no check reads.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    return run.read_table(REQUESTS, without=UNREAD)


def judged_scores(run: Run) -> pd.DataFrame | None:
    """The scores table likewise; None where there is none."""
    return run.read_table(SCORES, without=("version", "reason")) if run.has(SCORES.file) else None


def load_frames(run: Run, requests: pd.DataFrame | None = None) -> Frames:
    """The frames of a run folder; a run without scores or cluster samples has empty ones.

    Args:
        requests: :func:`judged_requests`, where they were read before.

    Raises:
        RunFolderError: there is no requests table, or a file is damaged.
    """
    manifest = run.manifest
    return build_frames(
        judged_requests(run) if requests is None else requests,
        judged_scores(run),
        run.cluster if run.has(CLUSTER.file) else None,
        manifest.scenario,
        level=manifest.level,
        load=manifest.load,
        interrupted=manifest.state == "interrupted",
        looks=manifest.looks,
    )


def build_frames(
    requests: pd.DataFrame,
    scores: pd.DataFrame | None,
    cluster: pd.DataFrame | None,
    scenario: Scenario,
    *,
    level: str | None = None,
    load: Mapping[str, Any] | None = None,
    interrupted: bool = False,
    looks: Looks | None = None,
    further: Sequence[str] = (),
) -> Frames:
    """Joins tables in memory; see :class:`Frames`.

    Args:
        looks: those of a run that may end early; what was due after the look that ended it is left
            out, for only fast answers had come of that.
        further: more columns that make slices.
    """
    warmup = (requests["role"] == "warmup").to_numpy(dtype=bool, na_value=False)
    # What an interrupt kept from being sent, or from being answered, says nothing of anybody.
    cut = requests["error_type"].isin(["interrupted", STOPPED_EARLY]).to_numpy(dtype=bool)
    until_s = None if looks is None else looks.until_s
    rows = before(requests[~warmup & ~cut], "due_s", until_s).reset_index(drop=True)
    rubrics = _rubrics(rows["request_id"], scores)
    return Frames(
        rows=rows,
        factors={column: _factor(rows[column]) for column in (*SLICE_COLUMNS, *further)},
        prompt=_factor(rows["prompt_id"]).codes,
        window=window_codes(rows, scenario.buckets.traffic.window_s),
        content=_factor(same_input(rows)).codes,
        rubrics=rubrics,
        cluster=before(cluster, "t_s", until_s)
        if cluster is not None
        else pd.DataFrame(columns=CLUSTER.names),
        scenario=scenario,
        level=level,
        load=dict(load or {}),
        interrupted=interrupted,
        counts=_counts(requests, int(warmup.sum()), rubrics),
        looks=looks,
        cut_from_s=_cut_from_s(requests[cut], until_s),
    )


def _cut_from_s(cut: pd.DataFrame, until_s: float | None) -> float | None:
    """When the first arrival that was cut off was due, or the look that ended the run."""
    times = [] if until_s is None else [until_s]
    if len(cut):
        times.append(float(cut["due_s"].min()))
    return min(times, default=None)


def before(frame: pd.DataFrame, column: str, until_s: float | None) -> pd.DataFrame:
    """The rows whose time in ``column`` lies before ``until_s``; all of them where that is None."""
    return frame if until_s is None else frame[frame[column] < until_s]


def _factor(column: pd.Series) -> Factor:
    codes, levels = pd.factorize(column)
    return Factor(codes.astype(np.int64), tuple(str(level) for level in levels))


def _rubrics(request_id: pd.Series, scores: pd.DataFrame | None) -> dict[str, Rubric]:
    if scores is None or scores.empty:
        return {}
    # Each id once: a request has as many scores as scorers apply to it.
    codes, ids = pd.factorize(scores["request_id"])
    of_id = np.append(pd.Index(request_id).get_indexer(pd.Index(ids)), -1)
    row = of_id[codes]  # -1, of no id, is the last
    value = scores["value"].to_numpy(dtype=float, na_value=np.nan)
    state = np.select(
        [
            (scores["status"] == "scored").to_numpy(dtype=bool, na_value=False) & ~np.isnan(value),
            (scores["status"] == "unscored").to_numpy(dtype=bool, na_value=False),
        ],
        [SCORED, UNSCORED],
        FAILED,
    ).astype(np.int8)
    scorer = _factor(scores["scorer"])
    rubrics: dict[str, Rubric] = {}
    for code, name in enumerate(scorer.levels):
        mine = (scorer.codes == code) & (row >= 0)
        values = np.full(len(request_id), np.nan)
        status = np.zeros(len(request_id), dtype=np.int8)
        values[row[mine]] = np.where(state[mine] == SCORED, value[mine], np.nan)
        status[row[mine]] = state[mine]
        rubrics[name] = Rubric(values, status)
    return rubrics


def _counts(requests: pd.DataFrame, warmup: int, rubrics: Mapping[str, Rubric]) -> dict[str, int]:
    outcome = requests["outcome"].value_counts()
    counts = {"planned": len(requests), **{name: int(outcome.get(name, 0)) for name in OUTCOMES}}
    cancelled = requests["cancelled"].fillna(False) if "cancelled" in requests else pd.Series([])
    statuses = [rubric.status for rubric in rubrics.values()]
    return {
        **counts,
        "cancelled": int(cancelled.sum()),
        "warmup": warmup,
        "scores_attempted": sum(int((s != NOT_APPLICABLE).sum()) for s in statuses),
        "scores_scored": sum(int((s == SCORED).sum()) for s in statuses),
        "scores_unscored": sum(int((s == UNSCORED).sum()) for s in statuses),
        "scores_failed": sum(int((s == FAILED).sum()) for s in statuses),
    }
