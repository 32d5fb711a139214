"""The manifests under deploy/ and the command line: what they ask for is there, and adds up."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from clustereval import __version__
from clustereval.cli import cli
from clustereval.cli.options import address
from clustereval.core.scenario_file import load_scenario
from clustereval.core.shipped import scenarios_dir

DEPLOY = Path(__file__).parents[2] / "deploy"
ENTRYPOINT = "clustereval"


def pods(name: str) -> dict[str, dict[str, Any]]:
    """The spec of every Job of a file, by its name; of a CronJob, of the Job that it makes."""
    found = {}
    for document in yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")):
        spec = document["spec"].get("jobTemplate", document).get("spec")
        if document["kind"] in ("Job", "CronJob"):
            found[document["metadata"]["name"]] = spec
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["template"]["spec"]["containers"]
    return dict(only)


def parsed(job: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The verb that a Job's container calls, and what the command line makes of its arguments."""
    inside = container(job)
    words = list(inside["args"])
    if inside.get("command") == ["/bin/sh", "-c"]:
        (script,) = words
        first, program, *words = shlex.split(script)
        assert (first, program) == ("exec", ENTRYPOINT)
    else:
        assert "command" not in inside, "the image's own entry point is clustereval"
    verb = cli.get_command(click.Context(cli), words[0])
    assert verb is not None
    return words[0], verb.make_context(words[0], words[1:]).params


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("load-workers.yaml", "clustereval"),
        ("load-workers.yaml", "clustereval-workers"),
        ("nightly-canary.yaml", "clustereval-canary"),
    ],
)
def test_manifests_call_the_command_line_as_it_is(name: str, job: str) -> None:
    """Every option is known, every scenario shipped, the image is this version's, and the key is
    in the environment under the name that the options give."""
    spec = pods(name)[job]
    inside, (verb, given) = container(spec), parsed(spec)
    assert inside["image"].endswith(f"/clustereval:{__version__}")
    if verb == "run":
        load_scenario(scenarios_dir() / f"{given['scenario']}.yaml")
        assert given["api_key_env"] in {item["name"] for item in inside["env"]}


def test_as_many_workers_are_started_as_the_master_waits_for() -> None:
    """Each process of a worker counts as one; all find the master where it listens, and have the
    key under the name that the master tells them."""
    jobs = pods("load-workers.yaml")
    run, worker = jobs["clustereval"], jobs["clustereval-workers"]
    (_, asked), (verb, given) = parsed(run), parsed(worker)
    assert verb == "worker"
    assert worker["parallelism"] == worker["completions"]
    assert asked["workers"] == worker["parallelism"] * given["processes"]
    _, port = address(given["master"], "MASTER:PORT")
    assert port == address(asked["bind"], "HOST:PORT")[1]
    assert container(run)["ports"] == [{"containerPort": port}]
    assert asked["api_key_env"] in {item["name"] for item in container(worker)["env"]}


def test_only_the_workers_find_the_master() -> None:
    """Service and network policy select the pods of the two Jobs, at the master's port."""
    text = (DEPLOY / "load-workers.yaml").read_text(encoding="utf-8")
    service, policy, run, worker = yaml.safe_load_all(text)
    master, workers = (job["spec"]["template"]["metadata"]["labels"] for job in (run, worker))
    assert service["spec"]["selector"] == master
    assert policy["spec"]["podSelector"]["matchLabels"] == master
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": workers}}]
    (port,) = service["spec"]["ports"]
    assert rule["ports"] == [{"port": port["port"]}]
    _, given = parsed(worker["spec"])
    assert given["master"] == f"{service['metadata']['name']}:{port['port']}"
