"""What a fleet in virtual time cannot replay, refused before anything is simulated."""

from __future__ import annotations

from clustereval.core.errors import ScenarioError
from clustereval.core.scenario import Scenario


def refuse_users(scenario: Scenario) -> None:
    """Refuses what users do beyond one request.

    The compiled fleet takes its arrivals as one list, due beforehand, and has one model.

    Raises:
        ScenarioError: sessions, clients that hang up, or models of a tenant's own.
    """
    for phase in scenario.phases:
        for key in ("sessions", "cancel"):
            if getattr(phase, key) is not None:
                _refuse(f"phases.{phase.name}.{key}")
    for tenant in scenario.tenants:
        if tenant.models is not None:
            _refuse(f"tenants.{tenant.name}.models")


def _refuse(path: str) -> None:
    raise ScenarioError(
        f"{path}: a simulated fleet has neither conversations, nor clients that hang up, nor LoRA "
        "adapters",
        expected="a scenario without",
        change=f"--set {path}=null, or `clustereval run` with --app simulated",
    )
