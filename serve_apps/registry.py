"""Every app that ``--app`` can start, declared once. Imports neither Ray nor vLLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from clustereval.core.errors import LocalAppError
from clustereval.core.shipped import FOR_SMALL_MODEL
from serve_apps import faults
from serve_apps.simulated.faults import FAULTS as SIMULATED_FAULTS
from serve_apps.vllm.faults import FAULTS as VLLM_FAULTS
from serve_apps.vllm.settings import PRESETS

AROUND_S: Final = 180.0
"""What Ray's own start and the first answers may take, beside the start of the replicas."""


@dataclass(frozen=True)
class Need:
    """A package that an app cannot do without.

    Attributes:
        module: what is imported from it.
        name: what people call it.
        install: the command that installs it.
    """

    module: str
    name: str
    install: str


@dataclass(frozen=True)
class App:
    """The declaration of one app.

    Attributes:
        module: run with ``python -m``; takes a :class:`serve_apps.cluster.Launch`.
        summary: what it is, in half a sentence.
        faults: what can be planted in it, by name.
        needs: what must be installed.
        start_s: how long its start may take, in seconds, on a machine of two cores.
        takes_prompts: whether its model answers from the prompts that it is given at the start.
        takes_adapters: whether it serves whatever LoRA adapters it is told the names of.
        knows: the prompt files that its model can answer, as the scenarios that ship name them;
            ``None``: any.
    """

    name: str
    module: str
    summary: str
    faults: faults.Catalogue
    needs: tuple[Need, ...]
    start_s: float
    takes_prompts: bool
    takes_adapters: bool = False
    knows: tuple[str, ...] | None = None

    def parse_faults(self, specs: Iterable[str]) -> dict[str, float]:
        """``NAME[=STRENGTH]`` items as name → strength; raises :class:`ScenarioError`."""
        return faults.parse_faults(specs, self.faults)

    def check_faults(self, given: Mapping[str, float | str | None]) -> dict[str, float]:
        """Name → strength with the defaults filled in; raises as :meth:`parse_faults`."""
        return faults.check_faults(given, self.faults)

    @property
    def prompt_override(self) -> str | None:
        """The ``--set`` that gives a scenario's golden set prompts that the model can answer."""
        return None if self.knows is None else f"prompt_sets.golden=[{','.join(self.knows)}]"

    def serving(self, models: Iterable[str | None]) -> dict[str, dict[str, list[str]]]:
        """Settings with which it serves these models beside its own, as far as it can."""
        names = [name for name in models if name is not None]
        return {"models": {"loras": names}} if self.takes_adapters and names else {}

    def require_installed(self) -> None:
        """Raises :class:`LocalAppError` where something that the app needs is missing."""
        for need in self.needs:
            if importlib.util.find_spec(need.module) is None:
                raise LocalAppError(
                    f"{need.name} is not installed",
                    expected=f"{need.name}, to start the app {self.name} on this machine",
                    change=f"{need.install}, or give --target URL instead of --app",
                )


APPS: Final = {
    app.name: app
    for app in (
        App(
            name="simulated",
            module="serve_apps.simulated.main",
            summary="an invented model with an engine's timing: needs no GPU, starts in seconds",
            faults=SIMULATED_FAULTS,
            needs=(Need("ray", "Ray", "pip install 'clustereval[serve]'"),),
            start_s=120.0,
            takes_prompts=True,
            takes_adapters=True,
        ),
        App(
            name="vllm",
            module="serve_apps.vllm.main",
            summary="a small real model in vLLM behind Ray Serve LLM, on CPU or GPU",
            faults=VLLM_FAULTS,
            needs=(
                Need("ray", "Ray", "pip install 'clustereval[vllm]'"),
                Need(
                    "vllm",
                    "vLLM",
                    "pip install 'clustereval[vllm]' for GPUs, `make install-vllm` for the CPU",
                ),
            ),
            # The app itself gives up first, for it knows what its replicas lack.
            start_s=AROUND_S + max(preset.app.start_s for preset in PRESETS.values()),
            takes_prompts=False,
            knows=tuple(f"prompts/{name}" for name in FOR_SMALL_MODEL),
        ),
    )
}


def find_app(name: str) -> App:
    """The app of this name.

    Raises:
        LocalAppError: there is none; lists those that there are.
    """
    if name not in APPS:
        raise LocalAppError(f"unknown app {name!r}", expected=f"one of {', '.join(APPS)}")
    return APPS[name]
