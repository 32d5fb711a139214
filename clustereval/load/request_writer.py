"""The bytes of each request, and the API keys: where they go, and where they must not.

Everything that can be wrong with a header is found before the first request is sent.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from clustereval.core import wire
from clustereval.core.api_keys import api_key
from clustereval.core.errors import ScenarioError
from clustereval.core.padding import Padder, unchanged
from clustereval.core.prompts import Message, PromptLibrary
from clustereval.core.scenario import Request, Tenant
from clustereval.load.rows import Arrival

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection"}
    | {"accept-encoding", wire.REQUEST_ID, wire.TRACEPARENT, wire.PIN}
)
_ORDINARY_WORD: Final = 8
"""Keys shorter than this (vLLM users set ``EMPTY``) are left in answers, where they are words."""


class Redactor:
    """Takes API keys out of what a target sent back."""

    def __init__(self, keys: Iterable[str]):
        self._keys = sorted({key for key in keys if key}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """``text`` without any key."""
        for key in self._keys:
            text = text.replace(key, "[redacted]")
        return text

    def answer(self, text: str) -> str:
        """The same for model output, where a key as short as a word is left alone."""
        for key in self._keys:
            if len(key) >= _ORDINARY_WORD:
                text = text.replace(key, "[redacted]")
        return text


class RequestWriter:
    """Makes each arrival's request.

    Args:
        target: request target, e.g. ``/v1/chat/completions``.
        authority: value of ``Host``.
        api_key_env: name of the variable with the target's key; a tenant's own goes first.
        headers: what each request says beside, to a proxy on the way.
        secrets: of that proxy, to be kept out of the rows as the keys are.
        padder: makes the prompts of arrivals that wish for a length.

    Raises:
        ScenarioError: a header that cannot be sent, or a key's variable that is not set.
    """

    def __init__(
        self,
        target: str,
        authority: str,
        *,
        model: str,
        request: Request,
        tenants: Iterable[Tenant],
        prompts: PromptLibrary,
        api_key_env: str | None,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        padder: Padder | None = None,
    ):
        self._model = model
        self._request = request
        self._prompts = prompts
        keys: list[str] = [*secrets]
        self._padder = padder
        self._heads: dict[str, str] = {}
        for tenant in tenants:
            key = api_key(tenant.api_key_env or api_key_env)
            secret = {name: api_key(v) or "" for name, v in tenant.headers_env.items()}
            keys += [*([] if key is None else [key]), *secret.values()]
            own = {name.lower(): value for name, value in {**tenant.headers, **secret}.items()}
            own |= headers or {}
            self._heads[tenant.name] = _static_head(
                target, authority, tenant.name, own, key, request.stream
            )
        self.redact = Redactor(keys)
        # Prompts recur; making each body once keeps the sender's own delay out of the numbers.
        # Padded ones do not recur, and each may be a megabyte: they are not kept. Nor are those
        # that hold what a model has said in a conversation.
        self._known_body = functools.lru_cache(maxsize=4096)(self._make_body)

    def __call__(self, arrival: Arrival) -> tuple[bytes, bytes]:
        """Head (with the blank line) and body."""
        own = (arrival.model or self._model, arrival.max_tokens, arrival.min_tokens)
        if arrival.wish is None and not arrival.said:
            body = self._known_body(arrival.prompt_id, *own)
        else:
            body = self._make_body(arrival.prompt_id, *own, self._messages(arrival))
        trace = wire.traceparent(arrival.trace_id, arrival.span_id)
        lines = [
            self._heads[arrival.tenant],
            f"{wire.REQUEST_ID}: {arrival.request_id}",
            f"{wire.TRACEPARENT}: {trace}",
            f"content-length: {len(body)}",
        ]
        if arrival.pin is not None:
            lines.append(f"{wire.PIN}: {arrival.pin}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body

    def _messages(self, arrival: Arrival) -> list[dict[str, Any]]:
        prompt = self._prompts[arrival.prompt_id]
        if arrival.wish is None:
            return with_answers(prompt.messages, arrival.said)
        assert self._padder is not None  # no replay begins without one: see session
        return self._padder.messages(prompt, arrival.wish)

    def _make_body(
        self,
        prompt_id: str,
        model: str,
        max_tokens: int | None,
        min_tokens: int | None,
        messages: list[dict[str, Any]] | None = None,
    ) -> bytes:
        prompt, request = self._prompts[prompt_id], self._request
        body: dict[str, Any] = {
            "model": model,
            "messages": unchanged(prompt) if messages is None else messages,
            "max_tokens": max_tokens or prompt.max_tokens or request.max_tokens,
            "temperature": request.temperature,
            "stream": request.stream,
        }
        if request.stream:
            body["stream_options"] = {"include_usage": True}
        optional: dict[str, Any] = {
            "seed": request.seed,
            "tools": prompt.tools,
            "response_format": prompt.response_format,
        }
        logprobs = request.logprobs if prompt.logprobs is None else prompt.logprobs
        if logprobs is not None:
            optional |= {"logprobs": True, "top_logprobs": logprobs or None}
        if min_tokens is not None:
            # Not OpenAI's: vLLM and SGLang take them.
            body.update(min_tokens=min_tokens, ignore_eos=True)
        body.update({name: value for name, value in optional.items() if value is not None})
        return json.dumps(body).encode("ascii")


def with_answers(messages: Sequence[Message], said: Sequence[str]) -> list[dict[str, Any]]:
    """The messages with ``said`` in place of the first assistant messages, one for one."""
    answers = iter(said)
    return [
        {"role": m.role, "content": next(answers, m.content)}
        if m.role == "assistant"
        else m.model_dump()
        for m in messages
    ]


def _static_head(
    target: str, authority: str, tenant: str, own: dict[str, str], key: str | None, stream: bool
) -> str:
    if taken := sorted(_OURS & own.keys()):
        raise ScenarioError(
            f"tenant {tenant!r}: header {taken[0]!r} is set by clustereval itself",
            change="drop it from the tenant's headers",
        )
    headers = {
        "host": authority,
        "user-agent": "clustereval",
        "accept": "text/event-stream" if stream else "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
    }
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    for name, value in {**headers, **own}.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            # The value is not shown: it may be a key.
            raise ScenarioError(
                f"tenant {tenant!r}: header {name!r} cannot be sent",
                expected="a name of letters, digits and hyphens; a value on one line, in Latin-1",
            )
    lines = [f"{name}: {value}" for name, value in {**headers, **own}.items()]
    return "\r\n".join([f"POST {target} HTTP/1.1", *lines])
