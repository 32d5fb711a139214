"""The simulated model: the engine with its answers and the planted faults.

Pure like the engine: whoever has a clock drives it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clustereval.core.padding import unpadded
from serve_apps.simulated.answers import Answer, AnswerBook, message_key
from serve_apps.simulated.engine import Conditions, Engine, EngineRequest, Plan
from serve_apps.simulated.faults import Faults, Reply
from serve_apps.simulated.settings import EngineSettings
from serve_apps.simulated.tokens import block_hashes, render, tokenize


@dataclass(frozen=True)
class Call:
    """One chat request: what was asked, by whom, and how to sample.

    Attributes:
        messages: role and content of each.
        tools: tool declarations, as OpenAI's API takes them.
        tenant: as the request's header says; empty where it does not.
        variant: what sampling hangs on at a temperature above 0; empty at 0.
        adapter: LoRA adapter asked for; empty: the model itself.
    """

    request_id: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    tools: list[dict[str, Any]] | None = None
    tenant: str = ""
    variant: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class Job:
    """A call, tokenized, with the answers that a sound model and a faulty one give."""

    request: EngineRequest
    right: Answer
    wrong: Answer


class Model:
    """One replica's model.

    Args:
        settings: of the engine; ``kv_blocks`` must be set.
        answers: what the model knows.
        faults: what is wrong with this replica.
    """

    def __init__(self, settings: EngineSettings, answers: AnswerBook, faults: Faults):
        self._answers = answers
        self._faults = faults
        self._tenants: Counter[str] = Counter()
        self._jobs: dict[str, Job] = {}
        self._replies: dict[str, Reply] = {}
        self.engine = Engine(settings, self._plan, self._hold)

    def job(self, call: Call) -> Job:
        """Tokenizes a call and looks its answers up; changes nothing."""
        tokens = tokenize(render(call.messages, call.tools))
        # Filler before a prompt costs prefill; what is asked is the prompt.
        own = unpadded(call.messages)
        key = message_key(own, call.tools)
        asked = next((m["content"] for m in reversed(own) if m["role"] == "user"), "")
        request = EngineRequest(
            request_id=call.request_id,
            prompt_tokens=len(tokens),
            block_hashes=block_hashes(tokens, self.engine.settings.block_tokens, call.adapter),
            max_tokens=call.max_tokens,
            tenant=call.tenant,
            prompt_key=key,
        )
        right = self._answers.answer(key, asked, call.adapter + call.variant)
        return Job(request, right, self._answers.wrong(key, asked))

    def has(self, request_id: str) -> bool:
        """Whether a request of this id is in flight: ids of clients need not be unique."""
        return request_id in self._jobs

    def reply(self, request_id: str) -> Reply:
        """The reply to a request of which the engine has generated something."""
        return self._replies[request_id]

    def submit(self, job: Job, now: float) -> None:
        """Hands a job to the engine; raises as :meth:`Engine.submit`."""
        if job.request.tenant:
            self._tenants[job.request.tenant] += 1
        self._jobs[job.request.request_id] = job
        self.engine.submit(job.request, now)

    def forget(self, request_id: str) -> None:
        """Drops a request that is answered, or that nobody waits for any more."""
        self.engine.cancel(request_id)
        self._jobs.pop(request_id, None)
        self._replies.pop(request_id, None)

    def _plan(self, at: Conditions) -> Plan:
        job = self._jobs[at.request.request_id]
        reply = self._faults.apply(job.right, job.wrong, at)
        reply = replace(reply, answer=reply.answer.limited(at.request.max_tokens))
        self._replies[at.request.request_id] = reply
        return Plan(len(reply.answer.tokens), reply.stall_after, reply.stall_s)

    def _hold(self, request: EngineRequest, in_flight: int) -> float:
        return self._faults.hold_s(request.tenant, self._tenants, in_flight)
