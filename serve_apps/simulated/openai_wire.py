"""Chat completions as OpenAI's API shapes them: the request read, the response written."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clustereval.core import attributes
from clustereval.probe.spans import annotate_span
from serve_apps.simulated.engine import Conditions
from serve_apps.simulated.faults import Reply
from serve_apps.simulated.model import Job
from serve_apps.simulated.settings import FINGERPRINT
from serve_apps.simulated.tokens import chance


class ChatMessage(BaseModel):
    """One message; parts of it that are not text are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The parts of a chat completion request that matter here; others are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @model_validator(mode="after")
    def _alternatives_go_with_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        return self


@dataclass(frozen=True)
class Progress:
    """How far an answer has come: ``tokens`` of ``reply.answer`` are generated."""

    reply: Reply
    conditions: Conditions
    tokens: int


@dataclass(frozen=True)
class Completion:
    """Writes one response."""

    id: str
    created: int
    job: Job
    chat: ChatRequest

    def whole(self, progress: Progress) -> dict[str, Any]:
        """The response where nothing is streamed."""
        answer = progress.reply.answer
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_name is not None:
            message["content"] = None
            message["tool_calls"] = [
                {
                    "id": self._call_id,
                    "type": "function",
                    "function": {"name": answer.tool_name, "arguments": answer.text},
                }
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs(progress, 0),
            "finish_reason": answer.finish_reason,
        }
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": self._usage(progress),
        }

    def opening_chunk(self, progress: Progress) -> bytes:
        """The role, and the called function's name."""
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        name = progress.reply.answer.tool_name
        if name is not None:
            function = {"name": name, "arguments": ""}
            call = {"index": 0, "id": self._call_id, "type": "function", "function": function}
            delta = {"role": "assistant", "content": None, "tool_calls": [call]}
        return self._chunk(delta)

    def delta_chunk(self, progress: Progress, sent: int) -> bytes:
        """The tokens after the first ``sent``."""
        answer = progress.reply.answer
        text = "".join(answer.tokens[sent : progress.tokens])
        delta: dict[str, Any] = {"content": text}
        if answer.tool_name is not None:
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
        return self._chunk(delta, logprobs=self._logprobs(progress, sent))

    def closing_chunk(self, progress: Progress) -> bytes:
        return self._chunk({}, progress.reply.answer.finish_reason)

    def usage_chunk(self, progress: Progress) -> bytes:
        return _event(
            {
                **self._head("chat.completion.chunk"),
                "choices": [],
                "usage": self._usage(progress),
            }
        )

    def trace(self, progress: Progress) -> None:
        """What is known at the end, on the server's span."""
        annotate_span(
            {
                attributes.OPERATION: "chat",
                attributes.PROVIDER: "clustereval.simulated",
                attributes.REQUEST_MODEL: self.chat.model,
                attributes.RESPONSE_ID: self.id,
                attributes.FINISH_REASONS: [progress.reply.answer.finish_reason],
                attributes.INPUT_TOKENS: self.job.request.prompt_tokens,
                attributes.OUTPUT_TOKENS: progress.tokens,
                attributes.CACHED_TOKENS: progress.conditions.cached_tokens,
                attributes.CACHE_HIT_RATIO: progress.conditions.cache_hit_ratio,
            }
        )

    @property
    def _call_id(self) -> str:
        return f"call_{self.id.removeprefix('chatcmpl-')}"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.chat.model,
            "system_fingerprint": FINGERPRINT,
        }

    def _logprobs(self, progress: Progress, sent: int) -> dict[str, Any] | None:
        """Of the tokens after the first ``sent``: invented, and the same each time, as answers are.

        Of the alternatives only the token itself is told: a simulation considered no other.
        """
        if not self.chat.logprobs:
            return None
        content = []
        for place in range(sent, progress.tokens):
            token = progress.reply.answer.tokens[place]
            draw = chance("logprob", self.job.request.prompt_key, place, token)
            told = {
                "token": token,
                "logprob": math.log(0.5 + draw / 2),
                "bytes": list(token.encode()),
            }
            top = [told] if self.chat.top_logprobs else []
            content.append({**told, "top_logprobs": top})
        return {"content": content}

    def _chunk(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason
        }  # fmt: skip
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _usage(self, progress: Progress) -> dict[str, Any]:
        prompt = self.job.request.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": progress.tokens,
            "total_tokens": prompt + progress.tokens,
            "prompt_tokens_details": {"cached_tokens": progress.conditions.cached_tokens},
        }


def _event(value: dict[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )
