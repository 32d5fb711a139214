"""What a simulated fleet is made of, from what a command line gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from clustereval.core.errors import ScenarioError
from serve_apps.settings import override_groups
from serve_apps.simulated.fleet.quality import Quality
from serve_apps.simulated.settings import AppSettings, EngineSettings

Given = Mapping[str, Mapping[str, float]]
"""Group (``app``, ``engine`` or ``quality``) → name → value."""

_POSITIVE: Final = frozenset(
    {
        "engine.max_num_seqs", "engine.step_token_budget", "engine.block_tokens",
        "engine.kv_blocks", "engine.context_tokens", "app.min_replicas", "app.max_replicas",
        "app.target_ongoing_requests", "app.max_ongoing_requests", "app.metrics_interval_s",
        "app.look_back_period_s", "app.upscaling_factor", "app.downscaling_factor",
        "quality.window_s",
    }
)  # fmt: skip
_SHARES: Final = frozenset(
    {"app.base_accuracy", "quality.accuracy", "quality.sampled", "quality.icc"}
)


@dataclass(frozen=True)
class Settings:
    """Engine, deployment, answers; ``prompts_of`` decides which prompts are hard."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    app: AppSettings = field(default_factory=AppSettings)
    quality: Quality = field(default_factory=Quality)
    prompts_of: str = ""


def settings_of(given: Given, window_s: float) -> Settings:
    """The app's own settings, with those that are ``given``.

    Args:
        window_s: of the scenario's load windows, in which answers go together.

    Raises:
        ScenarioError: a name that there is not, or a number that cannot be.
    """
    defaults: dict[str, Any] = {
        "engine": EngineSettings(),
        "app": AppSettings(),
        "quality": Quality(window_s=window_s),
    }
    try:
        groups = override_groups(defaults, given)
    except ValueError as error:
        raise ScenarioError(f"--setting: {error}") from None
    for name, group in groups.items():
        for one in fields(group):
            _refuse_impossible(f"{name}.{one.name}", str(one.type), getattr(group, one.name))
    app = groups["app"]
    if app.max_replicas < app.min_replicas:
        raise ScenarioError(
            f"--setting: app.max_replicas is {app.max_replicas}, app.min_replicas"
            f" {app.min_replicas}",
            expected="no fewer at most than at least",
            change=f"--setting app.max_replicas={app.min_replicas}",
        )
    if "base_accuracy" in given.get("app", {}):
        groups["quality"] = replace(groups["quality"], accuracy=app.base_accuracy)
    return Settings(**groups)


def _refuse_impossible(path: str, kind: str, value: float | None) -> None:
    if value is None:
        return
    expected = None
    if kind.startswith("int") and not isinstance(value, int):
        expected = "a whole number"
    elif path in _SHARES and not 0 <= value <= 1:
        expected = "a share, from 0 to 1"
    elif path in _POSITIVE and value <= 0:
        expected = "a number above 0"
    elif value < 0:
        expected = "no negative number"
    if expected:
        raise ScenarioError(f"--setting {path}={value:g}", expected=expected)
