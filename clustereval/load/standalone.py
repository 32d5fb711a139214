"""A run made by plain ``locust -f scenarios/locustfile.py``, without the ``clustereval`` command.

Settings come from the environment, because the command line is Locust's own.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clustereval.core.columns import PLAN
from clustereval.core.errors import ClusterEvalError, ExitCode, InvalidRunError, TargetError
from clustereval.core.scenario_file import load_scenario
from clustereval.core.shipped import scenarios_dir
from clustereval.core.urls import BASE_URL, split_url
from clustereval.load.arrivals import make_plan
from clustereval.rundir import Manifest, Run, Target, default_out, versions

RUN: Final = "CLUSTEREVAL_RUN"
"""Folder of the run to replay; where it is set, none of the others matters."""
PARENT_PID: Final = "CLUSTEREVAL_PARENT_PID"
"""Process that started the load: when it is gone, the load ends."""
AT_ONCE: Final = "CLUSTEREVAL_AT_ONCE"
"""Closes the loop, to find what a machine can send: so many requests at a time."""
SCENARIO: Final = "CLUSTEREVAL_SCENARIO"
MODEL: Final = "CLUSTEREVAL_MODEL"
API_KEY_ENV: Final = "CLUSTEREVAL_API_KEY_ENV"
OUT: Final = "CLUSTEREVAL_OUT"
SEED: Final = "CLUSTEREVAL_SEED"
REPLICAS: Final = "CLUSTEREVAL_REPLICAS"


NEWS: Final = "news of the load: "
"""In a printed line, what follows is for whoever started the load."""
_ERROR_MARK: Final = "clustereval-error: "


def told(error: ClusterEvalError, environ: Mapping[str, str]) -> str:
    """``error`` as one printed text: for the parent process where there is one, else for people."""
    if not environ.get(PARENT_PID):
        return str(error)
    parts = {"found": error.found, "expected": error.expected, "change": error.change}
    return _ERROR_MARK + json.dumps({**parts, "exit_code": int(error.exit_code)})


def heard(line: str) -> ClusterEvalError | None:
    """The error that a line of the load process tells of, if it is such a line."""
    if not line.startswith(_ERROR_MARK):
        return None
    value = json.loads(line.removeprefix(_ERROR_MARK))
    bad_input = value.pop("exit_code") == ExitCode.BAD_INPUT
    kind = ClusterEvalError if bad_input else InvalidRunError
    return kind(value.pop("found"), **value)


def new_salt() -> str:
    """What makes a run's request ids its own: eight characters of ``[0-9a-f]``."""
    return secrets.token_hex(4)


def make_run(environ: Mapping[str, str], host: str | None) -> Run:
    """Plans the scenario that the environment names, and makes its run folder.

    Args:
        host: Locust's ``--host``: the base URL; ``/v1`` is appended where it has no path.

    Raises:
        ClusterEvalError: something needed is missing or wrong.
    """
    if not host:
        raise TargetError("no target", expected="--host http://…/v1", change="give --host")
    model = environ.get(MODEL)
    if not model:
        raise TargetError(
            f"no model: {MODEL} is not set",
            expected="the model's name as the target's /v1/models lists it",
            change=f"export {MODEL}=…",
        )
    url = _base_url(host)
    split_url(url, "--target", BASE_URL)
    loaded = load_scenario(Path(environ.get(SCENARIO) or scenarios_dir() / "prelaunch.yaml"))
    seed = _whole(environ, SEED)
    seed = loaded.scenario.seed if seed is None else seed
    replicas = _whole(environ, REPLICAS)
    plan = make_plan(loaded, seed=seed, salt=new_salt(), replicas=replicas, model=model)
    out = Path(environ[OUT]) if environ.get(OUT) else default_out(loaded.scenario.name)
    manifest = Manifest(
        name=out.name,
        command=[os.path.basename(sys.argv[0]), *sys.argv[1:]],
        scenario=loaded.scenario,
        seed=seed,
        target=Target(url=url, model=model, api_key_env=environ.get(API_KEY_ENV) or None),
        versions=versions(),
    )
    run = Run.create(out, manifest)
    run.write_table(PLAN, plan)
    run.write_prompts(loaded.prompts)
    return run


def close_run(run: Run, *, t0_unix_s: float, interrupted: bool, load: dict[str, object]) -> None:
    """Writes into the manifest what the ``clustereval`` command would write after the load."""
    run.update_manifest(
        state="interrupted" if interrupted else "complete",
        t0_unix_s=t0_unix_s,
        ended_s=time.time() - t0_unix_s,
        load=load,
        hashes=run.hash_files(),
    )


def _base_url(host: str) -> str:
    bare = host.rstrip("/")
    return bare if "/" in bare.partition("://")[2] else f"{bare}/v1"


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdecimal():
        raise ClusterEvalError(f"{name}: found {text!r}", expected="a whole number")
    return int(text)
