"""Each tenant with the others, and with its own SLO."""

from __future__ import annotations

from collections.abc import Sequence

from clustereval.analysis import latency, rates, wording
from clustereval.analysis.checks.base import (
    NotObserved,
    Side,
    absent,
    draft,
    failed_share,
    latency_s,
    score_drafts,
)
from clustereval.analysis.estimates import Estimate
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Frames
from clustereval.core.checks import TenantFairness
from clustereval.core.findings import Finding, Status
from clustereval.core.scenario import Tenant

SLO_RUBRIC = "correct"


class TenantFairnessCheck:
    """A tenant is held against all *other* tenants' requests: a large tenant *is* most of "all".

    The two sides are then independent, and a tenant that is worse than all is worse still than
    the others.
    """

    name = "tenant_fairness"

    def evaluate(self, frames: Frames, settings: TenantFairness) -> Sequence[Draft] | NotObserved:
        drafts: list[Draft] = []
        tenants = frames.levels("tenant", frames.traffic)
        if len(tenants) > 1:
            for name in tenants:
                drafts += self._against_others(frames, settings, name)
        for tenant in frames.scenario.tenants:
            drafts += self._slo(frames, tenant)
        if not drafts:
            return NotObserved("needs a second tenant, or a tenant with an slo")
        return drafts

    def _against_others(self, frames: Frames, settings: TenantFairness, name: str) -> list[Draft]:
        mine = frames.traffic & frames.where(tenant=name)
        side = Side(mine, {"tenant": name}, f"tenant {name}")
        base = Side(
            frames.traffic & frames.factors["tenant"].known & ~mine,
            {"tenant": "others"},
            "the other tenants",
        )
        q = settings.quantile
        ratio = latency.quantile_ratio(
            frames, latency_s(frames, "e2e_due_s"), side.mask, base.mask, q, by="tenant"
        )
        slower = draft(
            self.name,
            f"e2e_due_s.p{100 * q:g}",
            ratio,
            unit="times",
            effect="ratio to the other tenants",
            margin=settings.latency_factor,
            slice_=side.names,
            baseline=base.names,
            say=lambda f: wording.level_sentence(
                f, side.words, f"p{100 * q:g} E2E against the other tenants is"
            ),
            remedy=lambda f: _remedy(frames, f, name),
        )
        scores = score_drafts(
            self.name, frames, settings.rubrics, (side, base), settings.score_margin,
            by="tenant", remedy=lambda f: _remedy(frames, f, name),
        )  # fmt: skip
        return [*scores, slower]

    def _slo(self, frames: Frames, tenant: Tenant) -> list[Draft]:
        """The tenant's own promises, each that was made."""
        slo, mine = tenant.slo, frames.traffic & frames.where(tenant=tenant.name)
        p = f"p{100 * slo.quantile:g}"
        drafts = []
        for column, what, limit in (
            ("ttft_due_s", "TTFT", slo.ttft_s),
            ("e2e_due_s", "E2E", slo.e2e_s),
        ):
            if limit is not None:
                over = latency.over_limit(frames, latency_s(frames, column), mine, limit)
                words = f"{what} over {limit:g} s in"
                drafts.append(
                    self._promise(
                        frames, tenant, f"{column}.{p}", over, "ratio", 1 - slo.quantile, words
                    )
                )
        if slo.error_ratio is not None:
            failed = rates.rate(frames, failed_share(frames), mine)
            words = "requests without an answer"
            drafts.append(
                self._promise(frames, tenant, "failed", failed, "ratio", slo.error_ratio, words)
            )
        if slo.score is not None:
            scores = frames.rubrics.get(SLO_RUBRIC, absent(frames))
            loss = rates.loss(frames, scores, mine)
            words = f"loss of `{SLO_RUBRIC}` is"
            drafts.append(
                self._promise(frames, tenant, SLO_RUBRIC, loss, "ratio", 1 - slo.score, words)
            )
        return drafts

    def _promise(
        self, frames: Frames, tenant: Tenant, metric: str, estimate: Estimate, unit: str,
        limit: float, words: str,
    ) -> Draft:  # fmt: skip
        return draft(
            self.name, f"slo.{metric}", estimate, unit=unit,
            effect=f"{words.removesuffix(' is')} against the tenant's SLO", margin=limit,
            slice_={"tenant": tenant.name}, baseline={"slo": limit},
            say=lambda f: wording.level_sentence(f, f"tenant {tenant.name}", words),
            remedy=lambda f: _remedy(frames, f, tenant.name),
        )  # fmt: skip


def _remedy(frames: Frames, finding: Finding, tenant: str) -> str:
    if finding.status is not Status.FAIL:
        return ""
    mine = frames.traffic & frames.where(tenant=tenant)
    share = mine.sum() / max(frames.traffic.sum(), 1)
    saturation = frames.rows["saturation"]
    met, others = saturation[mine].median(), saturation[frames.traffic & ~mine].median()
    text = f"tenant {tenant} sends {share:.0%} of the traffic"
    if met == met and others == others:
        text += f" and meets {met:.1f} requests per replica in the median (others {others:.1f})"
    return (
        f"{text}: give it its own queue or quota, or cap what the largest tenant may have in flight"
    )
