"""How checks and outcomes are called, everywhere that people read them."""

from __future__ import annotations

from typing import Final

from clustereval.core.findings import Status

TITLES: Final = {
    "model_quality": "Model quality",
    "replica_skew": "Replica skew",
    "autoscaling_lag": "Autoscaling lag",
    "cache_eviction": "Cache eviction",
    "traffic_drift": "Traffic drift",
    "tenant_fairness": "Tenant fairness",
    "fidelity": "Fidelity",
    "streaming": "Streaming",
    "run_health": "Run health",
}
QUESTIONS: Final = {
    "model_quality": "is the model good enough when the cluster is idle?",
    "replica_skew": "does one replica answer worse than its siblings?",
    "autoscaling_lag": "do answers suffer while the autoscaler catches up?",
    "cache_eviction": "does the prefix cache lose what it held, and do answers suffer?",
    "traffic_drift": "do bursts and sustained load change the answers?",
    "tenant_fairness": "does one tenant get less than the others?",
    "fidelity": "is the loaded answer the one the idle cluster gave?",
    "streaming": "do tokens arrive as they are made?",
    "run_health": "did the run measure the target, not the load generator?",
}
WORDS: Final = {
    "pass": "pass",
    "fail": "fail",
    "inconclusive": "inconclusive",
    "not_observed": "not observed",
    "remark": "remark",
    "invalid": "no valid run",
}
SYMBOLS: Final = {
    "pass": "✓",
    "fail": "✗",
    "inconclusive": "?",
    "not_observed": "–",
    "remark": "i",
    "invalid": "!",
}
SEVERITY: Final = {
    Status.FAIL: 0,
    Status.INCONCLUSIVE: 1,
    Status.REMARK: 2,
    Status.NOT_OBSERVED: 3,
    Status.PASS: 4,
}
