"""The checks of a run, one file each, in the order in which they are reported."""

from __future__ import annotations

from clustereval.analysis.checks.autoscaling_lag import AutoscalingLagCheck
from clustereval.analysis.checks.base import Check, NotObserved
from clustereval.analysis.checks.cache_eviction import CacheEvictionCheck
from clustereval.analysis.checks.fidelity import FidelityCheck
from clustereval.analysis.checks.model_quality import ModelQualityCheck
from clustereval.analysis.checks.replica_skew import ReplicaSkewCheck
from clustereval.analysis.checks.run_health import RunHealthCheck
from clustereval.analysis.checks.streaming import StreamingCheck
from clustereval.analysis.checks.tenant_fairness import TenantFairnessCheck
from clustereval.analysis.checks.traffic_drift import TrafficDriftCheck

__all__ = ["ALL_CHECKS", "Check", "NotObserved"]

ALL_CHECKS: tuple[Check, ...] = (
    ModelQualityCheck(),
    ReplicaSkewCheck(),
    AutoscalingLagCheck(),
    CacheEvictionCheck(),
    TrafficDriftCheck(),
    TenantFairnessCheck(),
    FidelityCheck(),
    StreamingCheck(),
    RunHealthCheck(),
)
