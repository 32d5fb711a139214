"""Looking at a target: what it offers is found, and what is wrong with it is said."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from clustereval.core import wire
from clustereval.core.errors import TargetError
from clustereval.observe.chat import lumps
from clustereval.observe.dashboard import ApplicationState, DeploymentState
from clustereval.observe.doctor import RayFacts, diagnose, explain
from clustereval.observe.target import TargetFacts, inspect_target, resolve_model
from clustereval.rundir import Target
from tests.observe.servers import Call, Reply, StubApi, json_reply, serving


def _target(url: str, **fields: Any) -> Target:
    return Target(**{"url": f"{url}/v1", "model": "m", **fields})


def test_a_plain_api_is_observed_at_client_level() -> None:
    """Streams, usage and the echoed id are found; without a probe there is no placement."""
    with serving(StubApi()) as url:
        facts = inspect_target(_target(url))
    assert facts.streams
    assert facts.usage
    assert facts.cached_tokens
    assert facts.request_id_echoed
    assert facts.content_chunks == 8
    assert facts.ttft_s is not None
    assert facts.e2e_s is not None
    assert facts.ttft_s < facts.e2e_s
    assert not facts.probed
    assert facts.pin_ranks == []
    assert facts.notes == []


@pytest.mark.parametrize(("replicas", "ranks"), [(1, [0]), (3, [0, 1, 2])])
def test_a_probe_and_its_pinning_are_found(replicas: int, ranks: list[int]) -> None:
    """Each rank is asked for; all that answer are listed with the replicas' ids."""
    with serving(StubApi(replicas=replicas, gap_s=0.0)) as url:
        facts = inspect_target(_target(url))
    assert facts.probed
    assert facts.replica_count == replicas
    assert facts.pin_ranks == ranks
    assert facts.replicas == [f"rep{rank}" for rank in ranks]


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_probe_that_ignores_pins_has_no_pinning(replicas: int) -> None:
    """Round-robin answers hit the rank asked for now and then: that is not pinning."""
    with serving(StubApi(replicas=replicas, pins=False, gap_s=0.0)) as url:
        assert inspect_target(_target(url)).pin_ranks == []


def test_what_the_probe_says_that_it_cannot_see_is_told_by_run_and_doctor() -> None:
    """Once, however many answers say it; a probe without trouble has no such line."""
    note = "what is observed may be wrong (ray 2.61.0, vllm 0.29.0)"
    for given in (note, None):
        with serving(StubApi(replicas=2, probe_note=given, gap_s=0.0)) as url:
            facts = inspect_target(_target(url))
        assert [n for n in facts.notes if note in n] == [
            f"the probe says of itself: {said}" for said in [given] if said
        ]
        lines = [line for line in explain(facts, RayFacts()) if line.detail == note]
        assert [line.observed for line in lines] == ([False] if given else [])


def test_a_target_that_sends_everything_at_once_is_told() -> None:
    """Server-side batching of the stream hides the time to first token."""

    def late(call: Call) -> Reply:
        if call.path.endswith("/models"):
            return json_reply({"data": [{"id": "m"}]})
        time.sleep(0.1)
        return StubApi(gap_s=0.0)(call)

    with serving(late) as url:
        facts = inspect_target(_target(url))
    assert any("batched" in note for note in facts.notes)
    times = next(line for line in explain(facts, RayFacts()) if "first token" in line.fact)
    assert times.change is not None


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        ([0.0015 * i for i in range(32)], 32),
        ([0.05] * 11 + [0.075] * 5, 2),
        ([0.05 + 1e-5 * i for i in range(16)], 1),
        ([0.3], 1),
    ],
)
def test_lumps_are_told_from_a_fast_engine(times_s: list[float], expected: int) -> None:
    """A token in 1.5 ms is no lump; two beats of a batcher are two; all at once are one."""
    assert lumps(times_s) == expected


@pytest.mark.parametrize(("lump", "told"), [(1, False), (3, True), (4, True)])
def test_a_batcher_is_told_by_the_lumps_in_which_chunks_come(lump: int, told: bool) -> None:
    """However short the answer is for its beat: a slow first token alone is no batcher."""
    stub = StubApi(gap_s=0.02)

    def beaten(call: Call) -> Reply:
        reply = stub(call)
        if call.path.endswith("/models"):
            return reply
        time.sleep(0.3)
        chunks = reply.chunks
        together = [b"".join(chunks[i : i + lump]) for i in range(1, len(chunks), lump)]
        return replace(reply, chunks=[chunks[0], *together])

    with serving(beaten) as url:
        facts = inspect_target(_target(url))
    assert any("batched" in note for note in facts.notes) is told


@pytest.mark.parametrize(
    ("metrics", "level"),
    [({"queue_time_ms": 0.4}, "client"), ({"queue_time_ms": None}, None), (None, None)],
)
def test_an_engine_that_tells_its_own_times_is_found(
    metrics: dict[str, Any] | None, level: str | None
) -> None:
    """Where answers do not say how long they queued, doctor names vLLM's option."""
    with serving(StubApi(metrics=metrics, gap_s=0.0)) as url:
        lines = {line.fact: line for line in diagnose(_target(url))}
    line = lines["engine's queue and prefill"]
    assert line.level == level
    assert (line.change is None) == (level is not None)
    assert level is not None or "enable_per_request_metrics" in (line.change or "")


def test_a_target_without_usage_says_what_to_turn_on() -> None:
    """No token counts: the cache-hit ratio cannot be observed, and doctor says the flag."""
    with serving(StubApi(usage=None)) as url:
        lines = diagnose(_target(url))
    cache = next(line for line in lines if line.fact == "cache-hit ratio")
    assert not cache.observed
    assert cache.change is not None
    assert "enable_prompt_tokens_details" in cache.change


def test_a_target_that_refuses_stream_options_is_asked_without() -> None:
    """An older server is tested all the same, and the note says what is lost."""
    inner = StubApi(usage=None)

    def strict(call: Call) -> Reply:
        if b"stream_options" in call.body:
            return json_reply({"error": "unknown field stream_options"}, 400)
        return inner(call)

    with serving(strict) as url:
        facts = inspect_target(_target(url))
    assert not facts.usage
    assert any("stream_options" in note for note in facts.notes)


def test_a_wrong_model_name_lists_those_there_are() -> None:
    """The choices are in the message."""
    with serving(StubApi(models=["a", "b"])) as url, pytest.raises(TargetError) as caught:
        inspect_target(_target(url, model="c"))
    assert "'c'" in caught.value.found
    assert caught.value.expected == "one of a, b"
    assert "--model" in str(caught.value.change)


def test_a_model_need_not_be_named_where_there_is_one() -> None:
    """One model is taken; several must be chosen from."""
    with serving(StubApi(models=["only"])) as url:
        assert resolve_model(f"{url}/v1", None) == "only"
    with serving(StubApi(models=["a", "b"])) as url, pytest.raises(TargetError, match="lists a, b"):
        resolve_model(f"{url}/v1", None)


def test_an_adapter_is_not_the_model_that_need_not_be_named() -> None:
    """vLLM lists LoRA adapters with the model they are of: there is one model, which is meant."""
    adapter = {"id": "m-billing", "parent": "m"}
    listed = json_reply({"data": [{"id": "m", "parent": None}, adapter]})
    with serving(lambda call: listed) as url:
        assert resolve_model(f"{url}/v1", None) == "m"
        assert resolve_model(f"{url}/v1", "m-billing") == "m-billing"
    with (
        serving(lambda call: json_reply({"data": [adapter]})) as url,
        pytest.raises(TargetError, match="it lists m-billing"),
    ):
        resolve_model(f"{url}/v1", None)


def test_models_that_the_target_does_not_list_are_told() -> None:
    """Those of the tenants alone, and none where it lists nothing at all."""
    facts = TargetFacts(url="u", model="m", models=["m", "m:a"])
    assert facts.unlisted([None, "m", "m:a", "m:b"]) == ["m:b"]
    assert facts.model_copy(update={"models": []}).unlisted(["m:b"]) == []


@pytest.mark.parametrize("refusal", [401, 403])
def test_a_wrong_key_names_the_option_and_never_the_key(
    monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    """Without and with a key; a server that echoes the key does not get it into our text."""
    with serving(StubApi(key="right", refusal=refusal)) as url:
        with pytest.raises(TargetError, match="--api-key-env"):
            inspect_target(_target(url))
        monkeypatch.setenv("STAGING_KEY", "sk-wrong-123")
        with pytest.raises(TargetError) as caught:
            inspect_target(_target(url, api_key_env="STAGING_KEY"))
        assert "STAGING_KEY" in str(caught.value)
        assert "sk-wrong-123" not in str(caught.value)
        monkeypatch.setenv("STAGING_KEY", "right")
        assert inspect_target(_target(url, api_key_env="STAGING_KEY")).streams


def test_a_redirect_is_not_followed_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other host hears nothing; the message says where it would have gone."""
    monkeypatch.setenv("STAGING_KEY", "sk-1")
    other = StubApi()
    with serving(other) as elsewhere:

        def redirect(call: Call) -> Reply:
            return Reply(307, [], {"Location": f"{elsewhere}{call.path}"})

        with serving(redirect) as url, pytest.raises(TargetError, match="redirects to"):
            inspect_target(_target(url, api_key_env="STAGING_KEY"))
    assert other.calls == []


def test_a_base_url_without_v1_is_told_the_right_one() -> None:
    """404 at /models, but /v1/models is there."""
    with serving(StubApi()) as url, pytest.raises(TargetError) as caught:
        inspect_target(Target(url=url, model="m"))
    assert caught.value.change == f"use --target {url}/v1"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, [b"<html>hello"], {"Content-Type": "text/html"}), "something else"),
        (Reply(503, [b"no replicas"]), "HTTP 503: no replicas"),
        (Reply(429, [], {"Retry-After": "7"}), "Retry-After 7"),
    ],
)
def test_what_is_no_openai_api_is_named(reply: Reply, words: str) -> None:
    """Other services, errors and rate limits are told apart."""
    stub = StubApi(override=lambda call: reply)
    with serving(stub) as url, pytest.raises(TargetError, match=words):
        inspect_target(_target(url))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"data: {not json\n\n", "not JSON"),
        (b'data: {"error": {"message": "boom"}}\n\n', "boom"),
        (b"\n", "without any chunk"),
    ],
)
def test_a_stream_that_is_no_completion_is_named(body: bytes, words: str) -> None:
    """Malformed events and errors within a stream with status 200 are errors."""

    def broken(call: Call) -> Reply:
        if call.path.endswith("/models"):
            return json_reply({"data": [{"id": "m"}]})
        return Reply(200, [body], {"Content-Type": "text/event-stream"})

    with serving(broken) as url, pytest.raises(TargetError, match=words):
        inspect_target(_target(url))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid/v1", "host name"),
        ("ftp://x/v1", "not an HTTP URL"),
        ("127.0.0.1:8000/v1", "not an HTTP URL"),
    ],
)
def test_a_url_that_leads_nowhere_says_so(url: str, words: str) -> None:
    """DNS and malformed URLs are told apart."""
    with pytest.raises(TargetError, match=words):
        inspect_target(Target(url=url, model="m"))


def test_a_target_that_is_down_or_speaks_no_tls_says_so() -> None:
    """A refused connection and a failed TLS handshake are told apart."""
    with serving(StubApi()) as url, pytest.raises(TargetError, match="TLS failed"):
        inspect_target(_target(url.replace("http://", "https://")))
    with pytest.raises(TargetError, match="nothing listens there"):
        inspect_target(_target(url))


def test_a_target_that_does_not_answer_in_time_says_so() -> None:
    """A stall past the time-out is an error, not a hang."""
    slow = Reply(200, [b"x"] * 20, {"Content-Length": "100"}, gap_s=0.2)
    with serving(StubApi(override=lambda call: slow)) as url, pytest.raises(TargetError):
        inspect_target(_target(url), timeout_s=0.05)


def test_doctor_says_what_a_plain_target_lacks() -> None:
    """Without probe and dashboard, placement is not observed, and each line says what to do."""
    with serving(StubApi()) as url:
        lines = {line.fact: line for line in diagnose(_target(url))}
    for fact in ("replica of each request", "replica count", "pinning to a replica", "autoscaler"):
        assert not lines[fact].observed
        assert lines[fact].change
    assert lines["queue depth at arrival"].level == "client"
    assert lines["cache-hit ratio"].observed
    assert "--ray-dashboard" in str(lines["replica count"].change)


def test_doctor_takes_a_broken_dashboard_as_a_finding() -> None:
    """A dashboard that is away does not end the diagnosis."""
    with serving(StubApi(replicas=2, gap_s=0.0)) as url:
        lines = {line.fact: line for line in diagnose(_target(url, ray_dashboard=url))}
    assert lines["replica of each request"].level == "probe"
    assert not lines["Ray dashboard"].observed
    assert lines["pinning to a replica"].observed


@pytest.mark.parametrize(
    ("headers", "deployment", "words"),
    [
        ([], "LLMServer:m", "is not honoured, or nothing says which rank"),
        ([wire.REPLICA_ID], "LLMServer:m", "what chooses them does not obey"),
        ([wire.REPLICA_ID], "LLMRouter", "direct streaming"),
        ([wire.REPLICA_ID, wire.ROUTER_WAIT_S], "LLMServer:m", "request router does not obey"),
    ],
)
def test_doctor_says_why_nothing_can_be_pinned(
    headers: list[str], deployment: str, words: str
) -> None:
    """Named replicas without pinning have several causes, each with a change of its own."""
    state = DeploymentState(name=deployment)
    ray = RayFacts((ApplicationState(name="a", deployments={deployment: state}),))
    facts = TargetFacts(url="http://t/v1", model="m", probe_headers=headers)
    lines = {line.fact: line for line in explain(facts, ray)}
    assert words in lines["pinning to a replica"].detail
    assert lines["pinning to a replica"].change
    router = lines["router's queue and wait"]
    assert router.observed is (wire.ROUTER_WAIT_S in headers)
    assert ("direct streaming" in router.detail) is (deployment == "LLMRouter")


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"min_replicas": 1, "max_replicas": 1}, "Model: target_ongoing_requests 4"),
        ({"min_replicas": 1, "max_replicas": 2}, "Ingress: no target_ongoing_requests"),
    ],
)
def test_an_ingress_that_cannot_scale_is_not_said_to_fail_to(
    bounds: dict[str, int], said: str
) -> None:
    """Serve LLM's ingress has its default target, which is none, and one replica at most."""
    scaling = {
        "Ingress": {"target_ongoing_requests": 1e9, **bounds},
        "Model": {"target_ongoing_requests": 4, "min_replicas": 1, "max_replicas": 2},
    }
    deployments = {
        name: DeploymentState(name=name, deployment_config={"autoscaling_config": config})
        for name, config in scaling.items()
    }
    ray = RayFacts((ApplicationState(name="a", deployments=deployments),))
    [line] = [
        line
        for line in explain(TargetFacts(url="http://h/v1", model="m"), ray)
        if line.fact == "autoscaler"
    ]
    assert line.detail.startswith(said)
