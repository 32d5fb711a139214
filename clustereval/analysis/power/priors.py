"""What a plan cannot know of a run, and what is assumed instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clustereval.analysis.samples import Noise
from clustereval.analysis.slices import Floats, Frames, Mask, load_frames
from clustereval.core.columns import REQUESTS
from clustereval.core.errors import RunFolderError, ScenarioError
from clustereval.rundir import Run

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Spread = Annotated[float, Field(gt=0, le=10)]

RUBRIC: Final = "correct"
"""Whose answers an earlier run's noise is measured on."""
_ENOUGH: Final = 30
"""Fewer repeated answers than this say nothing of their noise."""


class Priors(BaseModel):
    """Assumptions about the cluster and its answers; the defaults are of no particular one.

    Shares of buckets are of the requests under load; what is left of them is ``idle`` or ``high``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    level: Literal["client", "ray", "probe"] = Field("probe", description="level of observation")
    replicas: int = Field(2, ge=1, description="replicas that answer")
    replicas_loaded: int | None = Field(
        None, ge=1, description="those that answer under load; null: as many"
    )
    answer_s: Positive = Field(0.5, description="how long an answer takes in the median")
    warm: Share = Field(0.45, description="requests that meet a warm cluster")
    saturating: Share = Field(0.2, description="requests that meet a saturating one")
    scaling: Share = Field(0.1, description="requests that meet a scaling one")
    cache_low: Share | None = Field(
        0.2,
        description="requests with a low cache hit, of those whose prompt the replica had before; "
        "null: not reported",
    )
    cache_new: Share = Field(0.6, description="the same where the prompt is new to the replica")
    cache_medium: Share = Field(0.1, description="requests with a medium one")
    cache_repeatable: Share = Field(
        0.5, description="part of the variance of cache hits that a prompt repeats"
    )
    flip: Share = Field(0.01, description="answers that come out wrong by chance")
    repeatable: Share = Field(
        0.5, description="part of an effect's variance that a prompt repeats when asked again"
    )
    window_icc: Share = Field(
        0.01, description="part of it that the answers of one load window share"
    )
    latency_spread: Spread = Field(0.6, description="standard deviation of log latency")
    latency_icc: Share = Field(0.1, description="part of its variance that a load window shares")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        for names in (
            ("warm", "saturating", "scaling"),
            ("cache_low", "cache_medium"),
            ("cache_new", "cache_medium"),
        ):
            total = sum(getattr(self, name) or 0.0 for name in names)
            if total > 1 + 1e-9:
                raise ValueError(f"{' + '.join(names)} is {total:g}, which is more than 1")
        if self.replicas_loaded is not None and self.replicas_loaded < self.replicas:
            raise ValueError(
                f"replicas_loaded is {self.replicas_loaded}, fewer than replicas, {self.replicas}"
            )
        return self

    @property
    def noise(self) -> Noise:
        return Noise(self.flip, self.repeatable, self.window_icc)

    def changed(self, changes: Iterable[str]) -> Priors:
        """These with ``NAME=VALUE`` applied.

        Raises:
            ScenarioError: an unknown name, or a value that cannot be.
        """
        given: dict[str, Any] = {}
        for change in changes:
            name, equals, text = change.partition("=")
            if not equals or name not in type(self).model_fields:
                raise ScenarioError(
                    f"--prior {change}: found no NAME=VALUE with a known name",
                    expected=f"one of {', '.join(type(self).model_fields)}",
                )
            try:
                given[name] = yaml.safe_load(text)
            except yaml.YAMLError:
                raise ScenarioError(f"--prior {change}: the value is not YAML") from None
        if "replicas" in given:  # those of another fleet, under load as well
            given = {"replicas_loaded": None, **given}
        try:
            return type(self).model_validate({**self.model_dump(), **given})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ScenarioError(
                f"--prior {name or 'values'}: {first['msg'].removeprefix('Value error, ')}"
                + (f", found {given[name]!r}" if given.get(name) is not None else ""),
                change="see `clustereval plan --help`",
            ) from None


def priors_of(run: Run) -> tuple[Priors, tuple[str, ...]]:
    """What an earlier run shows, and the names of what it shows; the rest keeps its default.

    Raises:
        RunFolderError: the run has no requests, or a file is damaged.
    """
    if not run.has(REQUESTS.file):
        raise RunFolderError(
            f"{run.folder}: holds no {REQUESTS.file}",
            expected="a run whose traffic was sent",
            change=f"`clustereval score {run.folder}` makes it from what arrived",
        )
    frames = load_frames(run)
    if not frames.ok.any():
        raise RunFolderError(
            f"{run.folder}: not one request was answered",
            expected="a run with answers, to take their variance from",
        )
    return priors_from(frames)


def priors_from(frames: Frames) -> tuple[Priors, tuple[str, ...]]:
    """The same from the frames of a run with answers."""
    known: dict[str, Any] = {
        **_cluster(frames),
        **_answers(frames),
        **_latency(frames),
    }
    return Priors.model_validate(known), tuple(known)


def _cluster(frames: Frames) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if frames.level in ("client", "ray", "probe"):
        known["level"] = frames.level
    replicas = frames.levels("pin", frames.baseline) or frames.levels("replica_id")
    if replicas:
        known["replicas"] = len(replicas)
    if loaded := frames.levels("replica_id", frames.traffic):
        known["replicas_loaded"] = max(len(loaded), known["replicas"])
    rows = frames.traffic & frames.factors["saturation_bucket"].known
    if rows.any():
        for level in ("warm", "saturating", "scaling"):
            mine = rows & frames.where(saturation_bucket=level)
            known[level] = float(mine.sum() / rows.sum())
    return known | _cache(frames)


def _cache(frames: Frames) -> dict[str, Any]:
    """Shares of cache hits, of prompts that are new to their replica apart from others."""
    rows = np.flatnonzero(frames.factors["cache_bucket"].known & frames.ok)
    if not len(rows):
        return {"cache_low": None, "cache_medium": 0.0}
    rows = rows[np.argsort(frames.numbers("sent_s")[rows], kind="stable")]
    new = new_to_replica(frames.content[rows], frames.factors["replica_id"].codes[rows])
    low = frames.where(cache_bucket="low")[rows].astype(float)
    medium = float(frames.where(cache_bucket="medium")[rows].mean())
    known: dict[str, Any] = {"cache_medium": medium}
    for name, among in (("cache_low", ~new), ("cache_new", new)):
        if among.any():
            known[name] = min(float(low[among].mean()), 1 - medium)
    again = rows[~new]
    return known | {"cache_repeatable": _icc(low[~new], frames.prompt[again]) or 0.0}


def new_to_replica(content: np.ndarray, replica: np.ndarray) -> Mask:
    """Which requests are the first of their content at their replica; all in order of time."""
    pairs = pd.DataFrame({"content": content, "replica": replica})
    mask: Mask = ~pairs.duplicated().to_numpy(dtype=bool)
    return mask


def _answers(frames: Frames) -> dict[str, Any]:
    """Noise of the answers: what a prompt's own answers of one role differ by among themselves."""
    rubric = frames.rubrics.get(RUBRIC)
    if rubric is None:
        return {}
    rows = pd.DataFrame(
        {
            "value": rubric.value,
            "prompt": frames.content,
            "role": frames.factors["role"].codes,
            "window": frames.window,
        }
    )[rubric.scored & (frames.prompt >= 0)]
    cell = rows.groupby(["prompt", "role"])["value"]
    rows["off"] = rows["value"] - cell.transform("mean")
    further = len(rows) - cell.ngroups
    if further < _ENOUGH:
        return {}
    variance = float((rows["off"] ** 2).sum() / further)
    flip = (1 - np.sqrt(max(1 - 4 * min(variance, 0.25), 0.0))) / 2
    known: dict[str, Any] = {"flip": float(flip)}
    loaded = rows[frames.traffic[rows.index]]
    icc = _icc(loaded["off"].to_numpy(float), loaded["window"].to_numpy())
    return known if icc is None else {**known, "window_icc": icc}


def _latency(frames: Frames) -> dict[str, Any]:
    e2e = frames.numbers("e2e_due_s")
    rows = frames.traffic & frames.whole & (e2e > 0)
    if rows.sum() < _ENOUGH:
        return {}
    logs = np.log(e2e[rows])
    # What an answer itself takes: under load it waits as well, and calm phases would seem full.
    idle = frames.baseline & frames.ok & (e2e > 0)
    alone = e2e[idle if idle.sum() >= _ENOUGH else rows]
    known: dict[str, Any] = {"answer_s": float(np.median(alone))}
    if logs.std(ddof=1) > 0:
        known["latency_spread"] = float(logs.std(ddof=1))
    icc = _icc(logs, frames.window[rows])
    return known if icc is None else {**known, "latency_icc": icc}


def _icc(values: Floats, window: np.ndarray) -> float | None:
    """Share of the variance that a window's values have in common: the ANOVA estimator (Donner
    1986, Int Stat Rev 54:67), not below 0. None where nothing varies, or one window holds all."""
    groups = pd.Series(values).groupby(window)
    count = groups.size().to_numpy(float)
    if len(count) < 2 or len(values) <= len(count) or np.ptp(values) == 0:
        return None
    means = groups.mean().to_numpy(float)
    between = float((count * (means - values.mean()) ** 2).sum() / (len(count) - 1))
    within = float((groups.var(ddof=0).to_numpy(float) * count).sum() / (len(values) - len(count)))
    size = (count.sum() - (count**2).sum() / count.sum()) / (len(count) - 1)
    total = between + (size - 1) * within
    return min(max((between - within) / total, 0.0), 1.0) if total > 0 else None
