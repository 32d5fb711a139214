"""The `ray` level of observation, as the pipeline uses it: before, during and after the load."""

from __future__ import annotations

import dataclasses
from typing import Any

from clustereval.core.errors import TargetError
from clustereval.observe.access_logs import collect_access
from clustereval.observe.dashboard import Dashboard, find_token
from clustereval.observe.sampler import ClusterSampler, SamplerResult
from clustereval.rundir import RAW_ACCESS, RAW_CLUSTER, Run


class RayObserver:
    """Watches the run's cluster: ``start`` before the load, ``finish`` after it.

    >>> observer = RayObserver(run)  # doctest: +SKIP
    >>> observer.start()  # doctest: +SKIP
    >>> account = observer.finish()  # doctest: +SKIP

    Raises:
        TargetError: from the constructor, when the dashboard cannot be used at all: better to
            stop before the load than to find nothing after it.
    """

    def __init__(self, run: Run, token: str | None = None):
        manifest = run.manifest
        if manifest.target.ray_dashboard is None:
            raise ValueError("the target has no ray_dashboard")
        self._run = run
        self._dashboard = Dashboard(manifest.target.ray_dashboard, token or find_token())
        self._dashboard.serve_state()
        self._sampler = ClusterSampler(
            self._dashboard,
            run.path(RAW_CLUSTER),
            manifest.target.url,
            manifest.scenario.observe.sample_interval_s,
        )

    def start(self) -> None:
        self._sampler.start()

    def finish(self) -> dict[str, Any]:
        """Stops sampling and fetches the access logs; never raises for what the cluster does.

        Returns:
            An account for ``manifest.observation["ray"]``: samples, gaps (seconds since the
            run's start), replicas, access lines, notes.
        """
        sampled = self._sampler.stop()
        t0 = self._run.manifest.t0_unix_s
        account = {
            "samples": sampled.samples,
            "replicas": sorted(sampled.replicas),
            "gaps": [_gap(gap, t0) for gap in map(dataclasses.asdict, sampled.gaps)],
            **self._access(sampled, t0),
        }
        self._dashboard.close()
        return account

    def _access(self, sampled: SamplerResult, t0: float | None) -> dict[str, Any]:
        notes = list(sampled.notes)
        try:
            access = collect_access(
                self._dashboard,
                self._run.path(RAW_ACCESS),
                replicas=sampled.replicas.values(),
                proxies=sampled.proxies.values(),
                since_unix_s=None if t0 is None else t0 - 60.0,
            )
        except TargetError as error:
            return {
                "access_lines": 0,
                "notes": [*notes, f"no access logs: {error.found}: {error.change}"],
            }
        except OSError as error:
            return {"access_lines": 0, "notes": [*notes, f"no access logs: {error}"]}
        return {"access_lines": access.access_lines, "notes": [*notes, *access.notes]}


def _gap(gap: dict[str, Any], t0: float | None) -> dict[str, Any]:
    if t0 is None:
        return gap
    return {
        "start_s": round(gap["start_unix_s"] - t0, 3),
        "end_s": round(gap["end_unix_s"] - t0, 3),
        "reason": gap["reason"],
    }
