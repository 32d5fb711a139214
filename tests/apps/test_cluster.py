"""What a local cluster says when an application does not start."""

from __future__ import annotations

from types import SimpleNamespace as Record

import pytest

from clustereval.core.errors import LocalAppError
from serve_apps.cluster import _account, deploy, shorten

TRACEBACK = """The deployment failed to start 2 times in a row. Error:
ray::Replica.initialize() (pid=1)
RuntimeError: Traceback (most recent call last):
  File "replica.py", line 1, in initialize
    await self._start()
RuntimeError: Traceback (most recent call last):
  File "engine.py", line 2, in start
    raise RuntimeError("no model")
           ^^^^^^^^^^^^
RuntimeError: no model there
Have a look at config.json"""


def test_a_message_is_told_without_its_tracebacks() -> None:
    """The first lines and the last error; one without a traceback stays as it is."""
    assert shorten(TRACEBACK).splitlines() == [
        "The deployment failed to start 2 times in a row. Error:",
        "ray::Replica.initialize() (pid=1)",
        "RuntimeError: no model there",
        "Have a look at config.json",
    ]
    assert shorten("still waiting\n  for CPUs") == "still waiting\n  for CPUs"


def test_deployments_that_are_not_well_are_named_with_their_replicas() -> None:
    """The others are not; without any, the application's own message is what there is."""

    def deployment(status: str, message: str, **states: int) -> Record:
        return Record(status=Record(value=status), message=message, replica_states=states)

    found = Record(
        message="deploying",
        deployments={
            "Ingress": deployment("HEALTHY", "fine", RUNNING=1),
            "Model": deployment("UPDATING", "waiting for CPUs", RUNNING=1, STARTING=2),
        },
    )
    assert _account(found) == "Model: 1 RUNNING, 2 STARTING. waiting for CPUs"
    assert _account(Record(message="deploying", deployments={})) == "deploying"
    assert _account(None)


def test_an_application_that_fails_or_never_gets_ready_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once where Serve says that it failed; else when its time is over, with what is missing."""

    def serve_says(application: str, deployment: str, message: str) -> None:
        model = Record(
            status=Record(value=deployment), message=message, replica_states={"STARTING": 2}
        )
        found = Record(status=Record(value=application), message="", deployments={"Model": model})
        monkeypatch.setattr("ray.serve.status", lambda: Record(applications={"app": found}))

    monkeypatch.setattr("ray.serve.run_many", lambda *_, **__: None)
    serve_says("DEPLOY_FAILED", "DEPLOY_FAILED", TRACEBACK)
    with pytest.raises(LocalAppError, match=r"failed to start: Model(.|\n)*no model there"):
        deploy(Record(), "app", 60.0)
    serve_says("DEPLOYING", "UPDATING", "waiting for 2 CPUs")
    with pytest.raises(
        LocalAppError, match=r"still DEPLOYING after 0\.01 s(.|\n)*2 CPUs"
    ) as caught:
        deploy(Record(), "app", 0.01)
    assert "fewer replicas" in str(caught.value.change)
    monkeypatch.setattr("ray.serve.status", lambda: Record(applications={}))
    with pytest.raises(LocalAppError, match="NOT_STARTED"):
        deploy(Record(), "app", 0.01)
    serve_says("RUNNING", "HEALTHY", "")
    deploy(Record(), "app", 0.01)
