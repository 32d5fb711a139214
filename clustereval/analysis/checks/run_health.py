"""The run itself: a run that measured its own client says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clustereval.analysis import wording
from clustereval.analysis.checks.base import NotObserved
from clustereval.analysis.client_share import client_share, lost_workers, remedy
from clustereval.analysis.estimates import EVIDENCE
from clustereval.analysis.gates import Draft
from clustereval.analysis.intervals import point_quantile
from clustereval.analysis.slices import Floats, Frames, Mask
from clustereval.core.checks import RunHealth
from clustereval.core.findings import Finding, Warning, WarningCode
from clustereval.core.in_flight import MAX_IN_FLIGHT, PROCESS_IN_FLIGHT
from clustereval.core.sessions import TURN_FAILED

CENSUS = "census of the run's arrivals: no sampling error"


class RunHealthCheck:
    """Facts about this run, not inferences from it: the interval is the value itself.

    What matters is whether *these* rows measured the target, and all of them are known.
    """

    name = "run_health"

    def evaluate(self, frames: Frames, settings: RunHealth) -> Sequence[Draft] | NotObserved:
        if len(frames) == 0:
            return NotObserved("no arrival outside warm-up was recorded")
        late = frames.numbers("late_s")
        sent = ~np.isnan(late)
        drafts = [
            self._late(frames, late, sent, settings.late_p99_s),
            *self._client_shares(frames, settings),
        ]
        # Beyond max_in_flight it is the target that does not answer: a failure of the target. So is
        # a turn that its user never sent because the one before got no answer. A load process that
        # was full while others had room is our own affair.
        piled_up = frames.rows["error_type"].isin([MAX_IN_FLIGHT, TURN_FAILED]).to_numpy(bool)
        own = frames.where(outcome="dropped") & ~piled_up
        drafts.append(
            self._share(
                frames,
                "dropped",
                own,
                np.ones(len(frames), dtype=bool),
                settings.dropped_ratio,
                "arrivals that the load generator never sent",
                _dropped_remedy(frames, own),
            )
        )
        if frames.level in ("ray", "probe"):
            unobserved = ~frames.factors["replica_id"].known
            drafts.append(
                self._share(
                    frames,
                    "unobserved",
                    unobserved & frames.whole,
                    frames.whole,
                    settings.unobserved_ratio,
                    f"answers without a replica although the level is {frames.level}",
                    "check that every replica's access log or probe header reaches the observer",
                )
            )
        return [*drafts, *self._account(frames, settings)]

    def _account(self, frames: Frames, settings: RunHealth) -> list[Draft]:
        """What the load generator says of itself, as far as it says it."""
        drafts = []
        lag = frames.load.get("loop_lag_s")
        if isinstance(lag, dict) and isinstance(lag.get("p99"), int | float):
            drafts.append(
                self._census(
                    "loop_lag_s.p99", "s", "lag of the load generator's event loop, p99",
                    float(lag["p99"]), settings.late_p99_s,
                    n=len(frames), evidence=[], words="p99 lag of the load generator's event loop",
                    remedy=f"it sends late, and reads late what no kernel stamps; "
                    f"{remedy(frames.load)}",
                )
            )  # fmt: skip
        error_s = frames.load.get("clock_error_s")
        if isinstance(error_s, int | float) and error_s > 0:
            drafts.append(
                self._census(
                    "clock_s.max", "s", "how far a worker's clock may have been off the master's",
                    float(error_s), settings.late_p99_s,
                    n=len(frames), evidence=[], words="clock of a worker, off by at most",
                    remedy="arrivals of that worker may have been so late, or early: run workers "
                    "nearer to the master, with clocks kept by NTP",
                )
            )  # fmt: skip
        faults = frames.load.get("client_faults")
        if isinstance(faults, int):
            drafts.append(
                self._census(
                    "client_faults", "ratio", "share of arrivals lost to faults of the client",
                    faults / len(frames), settings.dropped_ratio,
                    n=len(frames), evidence=[], words="arrivals lost to faults of the client",
                    remedy="a fault of clustereval itself: see the log of the run, and report it",
                )
            )  # fmt: skip
        return drafts

    def _client_shares(self, frames: Frames, settings: RunHealth) -> list[Draft]:
        """The client's part of each latency, of runs that recorded it."""
        delay = frames.numbers("client_delay_s")
        drafts = []
        for name, column in (("TTFT", "ttft_due_s"), ("E2E", "e2e_due_s")):
            latency = np.where(frames.ok, frames.numbers(column), np.nan)
            share = client_share(latency, delay)
            if share is None:
                continue
            limit = min(max(settings.client_ratio, settings.client_least_s / share.measured_s), 1.0)
            where = "median" if share.quantile == 0.5 else f"p{100 * share.quantile:g}"
            worst = np.argsort(-np.where(np.isnan(delay), -np.inf, delay), kind="stable")
            drafts.append(
                self._census(
                    f"client_ratio.{name.lower()}", "ratio",
                    f"the load generator's own part of {name}, at its {where}",
                    share.ratio, limit, n=share.n, evidence=frames.ids(worst[:EVIDENCE]),
                    words=f"the load generator's own part of the {where} {name} "
                    f"({wording.amount(share.measured_s, 's')})",
                    remedy=remedy(frames.load),
                )
            )  # fmt: skip
        return drafts

    def _late(self, frames: Frames, late: Floats, sent: Mask, limit: float) -> Draft:
        value = point_quantile(np.sort(late[sent]), 0.99) if sent.any() else None
        worst = np.argsort(-np.where(sent, late, -np.inf), kind="stable")[:EVIDENCE]
        warnings = []
        if value is not None and value > limit / 2:
            detail = f"p99 lateness {wording.amount(value, 's')}"
            warnings.append(Warning(code=WarningCode.CLIENT_LATE, detail=detail))
        return self._census(
            "late_s.p99", "s", "lateness of the load generator, p99", value, limit,
            n=int(sent.sum()),
            evidence=frames.ids(worst[sent[worst]]),
            warnings=warnings,
            words="p99 lateness of the load generator",
            remedy=remedy(frames.load),
        )  # fmt: skip

    def _share(
        self, frames: Frames, metric: str, bad: Mask, among: Mask, limit: float, words: str,
        remedy: str,
    ) -> Draft:  # fmt: skip
        total = int(among.sum())
        value = float(bad.sum() / total) if total else None
        return self._census(
            metric, "ratio", f"share of {words}", value, limit,
            n=total, evidence=frames.ids(np.flatnonzero(bad)[:EVIDENCE]), words=words,
            remedy=remedy,
        )  # fmt: skip

    def _census(
        self, metric: str, unit: str, effect: str, value: float | None, limit: float, *,
        n: int, evidence: list[str], words: str, remedy: str,
        warnings: Sequence[Warning] = (),
    ) -> Draft:  # fmt: skip
        finding = Finding(
            check=self.name, metric=metric, unit=unit, effect=effect,
            observed=value, estimate=value, low=value, high=value, margin=limit, n=n,
            resampling_unit="none", method=CENSUS, evidence=evidence, warnings=list(warnings),
        )  # fmt: skip

        def say(f: Finding) -> str:
            if value is None:
                return f"{words}: nothing was sent"
            shown = wording.percent(value) if unit == "ratio" else wording.amount(value, unit)
            most = wording.percent(limit) if unit == "ratio" else wording.amount(limit, unit)
            return f"{words}: {shown} (allowed {most}; {n} arrivals)"

        return Draft(finding, None, say, lambda _: remedy)


def _dropped_remedy(frames: Frames, own: Mask) -> str:
    """What to change, by what most of our own drops were."""
    full = frames.rows["error_type"].eq(PROCESS_IN_FLIGHT).to_numpy(bool, na_value=False) & own
    if 2 * full.sum() > own.sum():
        return (
            "load processes were full while others had room: take fewer processes, or raise "
            "request.max_in_flight"
        )
    return lost_workers(frames.load) or "lower the rate, or run the load from another machine"
