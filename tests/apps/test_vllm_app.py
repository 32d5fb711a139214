"""What of the vLLM app can be held without Ray or vLLM: faults, settings, documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import serve_apps.vllm
from clustereval.core.errors import LocalAppError
from serve_apps.faults import check_faults
from serve_apps.registry import APPS
from serve_apps.vllm.faults import FAULTS, LIVE, ODD_RANK, Planted, ReplicaFaults, TenantPriority
from serve_apps.vllm.main import (
    REPLICA_START_S,
    REPLICAS_PER_CORE,
    fitted,
    notes,
    require_room,
)
from serve_apps.vllm.settings import CPU, GPU, PRESETS, AppSettings, EngineSettings

FOLDER = Path(serve_apps.vllm.__file__).parent


def test_without_faults_nothing_of_the_configuration_changes() -> None:
    """Neither engine nor autoscaler, and no replica is told anything."""
    planted = Planted({})
    assert planted.engine_kwargs == planted.autoscaling == {}
    assert ReplicaFaults.read(planted.user_config, ODD_RANK) == ReplicaFaults()


def test_every_fault_changes_the_configuration() -> None:
    """Engine, autoscaler or what replicas are told: a fault that changed nothing would be none."""
    clean = Planted({})
    for name, fault in FAULTS.items():
        planted = Planted({name: fault.default})
        assert (planted.engine_kwargs, planted.autoscaling, planted.user_config) != (
            clean.engine_kwargs,
            clean.autoscaling,
            clean.user_config,
        ), name


def test_faults_of_one_replica_leave_its_siblings_alone() -> None:
    """Only the odd rank has them; a replica without a rank has none."""
    told = Planted(check_faults(dict.fromkeys(LIVE), FAULTS)).user_config
    odd = ReplicaFaults.read(told, ODD_RANK)
    assert (odd.noise, odd.keep_tokens, odd.die_after_s) == (0.6, 160, 60)
    for rank in (0, 2, None):
        assert ReplicaFaults.read(told, rank) == ReplicaFaults()
    assert odd.spared().die_after_s is None
    assert odd.spared().noise == odd.noise


def test_the_tenant_with_the_most_requests_goes_first() -> None:
    """Lower numbers run first in vLLM; who is the largest is told by what was sent so far."""
    priority = TenantPriority()
    assert [priority.of("large") for _ in range(3)] == [0, 0, 0]
    assert [priority.of("small") for _ in range(2)] == [1, 1]
    assert priority.of("large") == 0
    assert [priority.of("small") for _ in range(3)] == [1, 0, 0]


def test_both_presets_scale() -> None:
    """The traps of Serve LLM's defaults: a target that is none, and a limit that hides demand."""
    for app in (CPU.app, GPU.app):
        assert app.target_ongoing_requests < 100
        assert app.target_ongoing_requests < app.max_ongoing_requests < 1000
        assert app.min_replicas < app.max_replicas


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (AppSettings(hardware="cpu", min_replicas=40), "40 replicas need 82 CPUs"),
        (AppSettings(min_replicas=2, replica_gib=1e5), r"200000\.0 GiB for 2 replicas"),
        (AppSettings(min_replicas=3), r"has 4 GPUs for vLLM(.|\n)*6 for 3 replicas of 2 each"),
    ],
)
def test_what_a_machine_cannot_hold_is_refused_with_the_numbers(
    app: AppSettings, said: str
) -> None:
    """Before minutes are spent on trying; what fits is not."""
    two_each = EngineSettings(tensor_parallel_size=2)
    with pytest.raises(LocalAppError, match=said):
        require_room(app, two_each, 64, lambda: 4)
    require_room(AppSettings(min_replicas=2), two_each, 64, lambda: 4)


def test_without_gpus_nobody_is_asked_for_them() -> None:
    """Torch is not imported for an app on CPUs."""

    def ask() -> int:
        raise AssertionError("asked")

    require_room(AppSettings(hardware="cpu", replica_gib=0.001), EngineSettings(), 2, ask)


def test_replicas_that_the_cores_would_start_too_slowly_are_refused() -> None:
    """Whatever Ray was told of CPUs, the machine's own cores start them, some on each."""
    most = 2 * REPLICAS_PER_CORE
    require_room(AppSettings(hardware="cpu", min_replicas=most), EngineSettings(), 2, lambda: 0)
    for many in (most + 1, 12):
        app = AppSettings(hardware="cpu", min_replicas=many)
        with pytest.raises(LocalAppError, match="start on CPUs") as caught:
            require_room(app, EngineSettings(), 2, lambda: 0)
        assert caught.value.found == f"{many} replicas are to start on CPUs, of 2 cores"
        assert "at most 8, which is 4 a core" in (caught.value.expected or "")
        assert "min_replicas" in (caught.value.change or "")
    require_room(AppSettings(min_replicas=12), EngineSettings(), 2, lambda: 12)


def test_so_many_replicas_a_core_start_within_the_limit() -> None:
    """What is accepted has the time that it takes."""
    assert CPU.app.start_s / 2 >= REPLICAS_PER_CORE * REPLICA_START_S


def test_whoever_starts_the_app_waits_for_longer_than_the_app_itself() -> None:
    """Else the reason, which the app knows, is lost."""
    for preset in PRESETS.values():
        assert APPS["vllm"].start_s > preset.app.start_s


def test_a_start_that_fails_once_is_final_on_one_machine_only() -> None:
    """In a cluster a node or a download may fail; here a model that fails fails again."""
    assert CPU.app.failed_starts == 1
    assert GPU.app.failed_starts > 1


@pytest.mark.parametrize("name", ["serve.yaml", "serve-cpu.yaml"])
def test_the_yaml_files_name_settings_that_exist(name: str) -> None:
    """The builder is there, and each argument is one that it takes."""
    config = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    (application,) = config["applications"]
    assert application["import_path"] == "serve_apps.vllm.app:build"
    groups = dict(application["args"])
    settings = PRESETS[groups.pop("preset")].override(groups)
    assert settings.app.min_replicas == 2


def test_the_readme_lists_exactly_the_faults_that_there_are() -> None:
    """Names, default strengths, their unit, and the check that is expected to find them."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (\w+) \| `(\w+)` \|", readme, re.MULTILINE)
    assert rows == [(f.name, f"{f.default:g}", f.unit, f.failed_by) for f in FAULTS.values()]
    (live,) = re.findall(r"^((?:`\w+`(?:, | and )?)+) live in", readme, re.MULTILINE)
    assert tuple(re.findall(r"\w+", live.replace(" and ", " "))) == LIVE


def test_a_small_machine_is_not_asked_for_more_replicas_than_cores() -> None:
    """Beyond the replicas that the app starts with; GPUs are another matter."""
    assert fitted(CPU, 1).app.max_replicas == CPU.app.min_replicas
    assert fitted(CPU, 64) == CPU
    assert fitted(GPU, 1) == GPU


@pytest.mark.parametrize(
    ("fault", "cores", "noted"),
    [
        ("late_autoscaler", 2, True),
        ("late_autoscaler", 3, False),
        ("low_max_num_seqs", 2, False),
    ],
)
def test_an_autoscaler_without_room_is_remarked_on(fault: str, cores: int, noted: bool) -> None:
    """Where no replica can be asked for, none can be asked for late: a pass says nothing."""
    said = notes(fitted(CPU, cores).app, Planted({fault: 1}), cores)
    assert [f"{fault} cannot show here" in note for note in said] == [True] * noted
    assert all("with 2 replicas and may have no more" in note for note in said)
