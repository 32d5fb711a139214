"""Descriptive intervals for what the page draws.

Gates are decided in ``clustereval.analysis``; these intervals only keep a drawn mean or quantile
from being read as exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

FEWEST_CLUSTERS = 5


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; bounds are null where they cannot be told."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def mean_of_scores(values: pd.Series, clusters: pd.Series, confidence: float = 0.95) -> Estimate:
    """Mean of scores in 0..1 with a Wilson interval at the effective sample size.

    Requests of one prompt are alike, so the effective size comes from the variance between
    prompts (Korn and Graubard, Survey Methodology 24, 1998). Where no value differs it is the
    number of prompts.

    Args:
        values: scores in 0..1, null where there is none (left out).
        clusters: the resampling unit of each value, same index.
    """
    keep = values.notna().to_numpy()
    x = values.to_numpy(dtype=float, na_value=np.nan)[keep]
    n = len(x)
    if n == 0:
        return Estimate(None, None, None, 0)
    mean = float(x.mean())
    codes, labels = pd.factorize(clusters.to_numpy()[keep])
    groups = len(labels)
    if groups < FEWEST_CLUSTERS:
        return Estimate(mean, None, None, n)
    sums = np.bincount(codes, weights=x - mean)
    variance = float((sums**2).sum()) / n**2 * groups / (groups - 1)
    spread = mean * (1 - mean)
    effective = spread / variance if variance > 0 and spread > 0 else float(groups)
    low, high = proportion_confint(
        mean * effective, effective, alpha=1 - confidence, method="wilson"
    )
    return Estimate(mean, max(0.0, float(low)), min(1.0, float(high)), n)


def quantile(values: pd.Series, q: float, confidence: float = 0.95) -> Estimate:
    """A quantile with its distribution-free interval from order statistics.

    Bounds are null where the sample is too small to bound the quantile on that side
    (Hahn and Meeker, *Statistical Intervals*, 5.2). Resampling unit: the request.
    """
    x = np.sort(values.dropna().to_numpy(dtype=float))
    n = len(x)
    if n == 0:
        return Estimate(None, None, None, 0)
    alpha = 1 - confidence
    lower = int(stats.binom.ppf(alpha / 2, n, q)) - 1
    upper = int(stats.binom.ppf(1 - alpha / 2, n, q))
    low = float(x[lower]) if lower >= 0 else None
    high = float(x[upper]) if upper < n else None
    return Estimate(float(np.quantile(x, q)), low, high, n)


def paired_mean(differences: pd.Series, confidence: float = 0.95) -> Estimate:
    """Mean of paired differences with a t interval; none where no pair differs."""
    x = differences.dropna().to_numpy(dtype=float)
    n = len(x)
    if n == 0:
        return Estimate(None, None, None, 0)
    mean = float(x.mean())
    if n < FEWEST_CLUSTERS:
        return Estimate(mean, None, None, n)
    error = float(x.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return Estimate(mean, None, None, n)
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    return Estimate(mean, mean - half, mean + half, n)
