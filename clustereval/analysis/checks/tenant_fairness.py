"""Each tenant with the others, and with its own SLO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
from clustereval.analysis.estimates import (
    DIFFERENT,
    MIN_PAIRS,
    Estimate,
    apart,
    missing_estimate,
)
from clustereval.analysis.gates import Draft
from clustereval.analysis.slices import Factor, Frames, Mask
from clustereval.core.checks import TenantFairness
from clustereval.core.findings import Finding, Status
from clustereval.core.scenario import Tenant

SLO_RUBRIC = "correct"


class TenantFairnessCheck:
    """A tenant is held against all *other* tenants' requests: a large tenant *is* most of "all".

    The two sides then share no request, and a tenant that is worse than all is worse still than
    the others. Where it asks for other things than they do, the difference may be its prompts':
    then only its own SLO gates.
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
        sides = _sides(frames, name)
        paired, alike = _comparable(frames, *sides)
        drafts = score_drafts(
            self.name, frames, settings.rubrics, sides, settings.score_margin,
            by="tenant", gate=paired, remedy=lambda f: _remedy(frames, f, name),
        )  # fmt: skip
        drafts.append(self._slower(frames, settings, sides, gate=alike))
        if not paired and not any(tenant.name == name for tenant in _promised(frames)):
            drafts.append(self._undecided(settings, name))
        return drafts

    def _slower(
        self, frames: Frames, settings: TenantFairness, sides: tuple[Side, Side], gate: bool
    ) -> Draft:
        side, base = sides
        shared = _shared(frames, side.mask, base.mask) if gate else frames.traffic
        p = f"p{100 * settings.quantile:g}"
        ratio = latency.quantile_ratio_together(
            frames, latency_s(frames, "e2e_due_s"), side.mask & shared, base.mask & shared,
            settings.quantile, by="tenant",
        )  # fmt: skip
        return draft(
            self.name, f"e2e_due_s.{p}", ratio, unit="times",
            effect="ratio to the other tenants", margin=settings.latency_factor,
            slice_=side.names, baseline=base.names, gate=gate,
            say=lambda f: wording.ratio_sentence(f, side.words, f"{p} E2E", base.words),
            remedy=lambda f: _remedy(frames, f, str(side.names["tenant"])),
        )  # fmt: skip

    def _undecided(self, settings: TenantFairness, name: str) -> Draft:
        words = f"tenant {name} asks for other prompts than the others and has no slo"
        return draft(
            self.name, settings.rubrics[0], missing_estimate("paired by prompt", 0), unit="ratio",
            effect="drop against the other tenants", margin=settings.score_margin,
            slice_={"tenant": name}, baseline={"tenant": "others"},
            say=lambda _: f"{words}: nothing to hold it against",
            remedy=lambda _: f"give it an slo, or let tenant {name} send the others' prompts too",
        )  # fmt: skip

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
                words = ("requests", f"take more than {limit:g} s {what}")
                drafts.append(
                    self._promise(
                        frames, tenant, f"{column}.{p}", over, "ratio", 1 - slo.quantile, words
                    )
                )
        if slo.error_ratio is not None:
            failed = rates.rate(frames, failed_share(frames), mine)
            words = ("requests", "get no answer")
            drafts.append(
                self._promise(frames, tenant, "failed", failed, "ratio", slo.error_ratio, words)
            )
        if slo.score is not None:
            scores = frames.rubrics.get(SLO_RUBRIC, absent(frames))
            loss = rates.loss(frames, scores, mine)
            words = (f"`{SLO_RUBRIC}`", "is lost")
            drafts.append(
                self._promise(frames, tenant, SLO_RUBRIC, loss, "ratio", 1 - slo.score, words)
            )
        return drafts

    def _promise(
        self, frames: Frames, tenant: Tenant, metric: str, estimate: Estimate, unit: str,
        limit: float, words: tuple[str, str],
    ) -> Draft:  # fmt: skip
        return draft(
            self.name, f"slo.{metric}", estimate, unit=unit,
            effect=f"share of {' that '.join(words)}, against the tenant's SLO", margin=limit,
            slice_={"tenant": tenant.name}, baseline={"slo": limit},
            say=lambda f: wording.share_sentence(f, f"for tenant {tenant.name}", words),
            remedy=lambda f: _remedy(frames, f, tenant.name),
        )  # fmt: skip


def _sides(frames: Frames, name: str) -> tuple[Side, Side]:
    mine = frames.traffic & frames.where(tenant=name)
    others = frames.traffic & frames.factors["tenant"].known & ~mine
    return (
        Side(mine, {"tenant": name}, f"tenant {name}"),
        Side(others, {"tenant": "others"}, "the other tenants"),
    )


def _shared(frames: Frames, mine: Mask, others: Mask) -> Mask:
    """Rows whose prompt both sides sent."""
    common = np.intersect1d(frames.content[mine], frames.content[others])
    shared: Mask = np.isin(frames.content, common[common >= 0])
    return shared


def _comparable(frames: Frames, side: Side, base: Side) -> tuple[bool, bool]:
    """(whether enough prompts pair the scores, whether the rest makes latencies comparable too).

    Latency is not paired. It is compared over the prompts that both sent, where those are most of
    the tenant's requests and neither families nor prompt lengths are mixed otherwise: a tenant of
    long contexts is slower on the healthiest fleet.
    """
    shared = _shared(frames, side.mask, base.mask)
    mine, others = side.mask & shared, base.mask & shared
    paired = len(np.unique(frames.content[mine])) >= MIN_PAIRS
    most = mine.sum() >= 0.5 * max(side.mask.sum(), 1)
    mixes = (frames.factors["family"], _lengths(frames))
    return paired, bool(
        paired and most and all(apart(mix, mine, others) <= DIFFERENT for mix in mixes)
    )


def _lengths(frames: Frames) -> Factor:
    """Quarter of the traffic's prompt lengths that each request falls into."""
    tokens = frames.numbers("prompt_tokens")
    known = ~np.isnan(tokens)
    if not (known & frames.traffic).any():
        return Factor(np.full(len(frames), -1, dtype=np.int64), ())
    edges = np.quantile(tokens[known & frames.traffic], (0.25, 0.5, 0.75))
    codes = np.where(known, np.searchsorted(edges, tokens, side="left"), -1)
    return Factor(codes.astype(np.int64), ("shortest", "short", "long", "longest"))


def _promised(frames: Frames) -> list[Tenant]:
    """The tenants that were promised anything."""
    return [
        tenant
        for tenant in frames.scenario.tenants
        if any(
            limit is not None
            for limit in (
                tenant.slo.ttft_s, tenant.slo.e2e_s, tenant.slo.error_ratio, tenant.slo.score
            )
        )
    ]  # fmt: skip


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
