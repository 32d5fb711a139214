"""The OpenAI-compatible routes of the simulated model: JSON, or server-sent events."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError

from clustereval.core import wire
from serve_apps.simulated.driver import Driver
from serve_apps.simulated.model import Call, Job, Model
from serve_apps.simulated.openai_wire import ChatRequest, Completion, Progress
from serve_apps.simulated.settings import MODEL, SIMULATED_HEADER

SIMULATED = {SIMULATED_HEADER: "1"}
DEFAULT_MAX_TOKENS = 256
TENANT_HEADER = "x-tenant"


@dataclass
class Replica:
    """What the routes of one replica share."""

    model: Model
    driver: Driver
    models: tuple[str, ...] = (MODEL,)
    """What may be asked for: the model itself, and then its LoRA adapters."""


def create_api(
    start: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """The FastAPI application.

    Args:
        start: lifespan that sets ``app.state.replica`` to a :class:`Replica`.
    """
    api = FastAPI(
        title="clustereval simulated engine",
        description="Answers come from a simulation, not from a language model.",
        lifespan=start,
        # The probe makes the server span; FastAPI's own would be a second one for each request.
        telemetry={"tracing": False},
    )
    api.add_api_route("/v1/chat/completions", _chat, methods=["POST"])
    api.add_api_route("/v1/models", _models, methods=["GET"])
    api.add_api_route("/health", _health, methods=["GET"])
    api.add_exception_handler(404, _not_found)
    return api


def error_response(
    status: int, message: str, *, kind: str, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """An error as OpenAI's clients expect it."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers=SIMULATED)


async def _health(request: Request) -> Response:
    replica: Replica = request.app.state.replica
    if not replica.driver.is_healthy:
        return error_response(503, "the simulated engine broke down", kind="server_error")
    return JSONResponse({"status": "ok", "simulated": True}, headers=SIMULATED)


async def _models(request: Request) -> Response:
    replica: Replica = request.app.state.replica
    same = {"object": "model", "created": 0, "owned_by": "clustereval-simulated"}
    # As vLLM lists them: an adapter names the model that it is one of.
    listed = [
        {"id": name, **same, "parent": None if name == MODEL else MODEL} for name in replica.models
    ]
    return JSONResponse({"object": "list", "data": listed}, headers=SIMULATED)


async def _not_found(request: Request, error: Exception) -> Response:
    return error_response(
        404, f"no such path: {request.url.path}", kind="invalid_request_error", code="not_found"
    )


async def _chat(request: Request) -> Response:
    try:
        chat = ChatRequest.model_validate(await request.json())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        return error_response(
            400, f"{where}: {first['msg']}", kind="invalid_request_error", param=where
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return error_response(400, f"the body is not JSON: {error}", kind="invalid_request_error")
    replica: Replica = request.app.state.replica
    if chat.model not in replica.models:
        return error_response(
            404,
            f"the model {chat.model!r} does not exist; this server has "
            f"{', '.join(map(repr, replica.models))}",
            kind="invalid_request_error",
            param="model",
            code="model_not_found",
        )
    job = replica.model.job(_call(replica.model, chat, request))
    if not replica.model.engine.fits(job.request):
        return error_response(
            400,
            f"{job.request.prompt_tokens} prompt tokens and {job.request.max_tokens} to generate "
            f"exceed the context of {replica.model.engine.settings.context_tokens} tokens",
            kind="invalid_request_error",
            param="messages",
            code="context_length_exceeded",
        )
    return await _answer(replica, job, chat)


def _call(model: Model, chat: ChatRequest, request: Request) -> Call:
    given = request.headers.get(wire.REQUEST_ID)
    request_id = given if given and not model.has(given) else uuid.uuid4().hex
    sampled = f"{chat.seed if chat.seed is not None else request_id}" if chat.temperature else ""
    return Call(
        request_id=request_id,
        messages=[{"role": m.role, "content": m.text} for m in chat.messages],
        max_tokens=chat.max_completion_tokens or chat.max_tokens or DEFAULT_MAX_TOKENS,
        tools=chat.tools,
        tenant=request.headers.get(TENANT_HEADER, ""),
        variant=sampled,
        adapter="" if chat.model == MODEL else chat.model,
    )


async def _answer(replica: Replica, job: Job, chat: ChatRequest) -> Response:
    """Waits for the first token, since an error can only be told before the response starts."""
    stream = _tokens(replica, job)
    first = await anext(stream)
    status = first.reply.error_status
    if status is not None:
        await stream.aclose()
        return error_response(status, "planted fault: errors", kind="server_error")
    completion = Completion(f"chatcmpl-{job.request.request_id}", int(time.time()), job, chat)
    if chat.stream:
        usage = chat.stream_options is not None and chat.stream_options.include_usage
        events = _sse(completion, first, stream, usage)
        return StreamingResponse(events, media_type="text/event-stream", headers=SIMULATED)
    last = first
    async for progress in stream:
        last = progress
    completion.trace(last)
    if last.reply.cut_after is not None:
        return error_response(500, "planted fault: errors", kind="server_error")
    return JSONResponse(completion.whole(last), headers=SIMULATED)


async def _tokens(replica: Replica, job: Job) -> AsyncGenerator[Progress, None]:
    count = 0
    async with contextlib.aclosing(replica.driver.generate(job)) as steps:
        async for events in steps:
            count += len(events)
            reply = replica.model.reply(job.request.request_id)
            yield Progress(reply, events[-1].conditions, count)


async def _sse(
    completion: Completion,
    first: Progress,
    rest: AsyncGenerator[Progress, None],
    include_usage: bool,
) -> AsyncIterator[bytes]:
    """Server-sent events: a chunk per engine step, usage in a last chunk of its own."""
    sent, progress = 0, first
    try:
        yield completion.opening_chunk(first)
        while True:
            cut = progress.reply.cut_after
            if cut is not None and progress.tokens > cut:
                raise ConnectionAbortedError("planted fault: errors")
            yield completion.delta_chunk(progress, sent)
            sent = progress.tokens
            try:
                progress = await anext(rest)
            except StopAsyncIteration:
                break
        yield completion.closing_chunk(progress)
        if include_usage:
            yield completion.usage_chunk(progress)
        yield b"data: [DONE]\n\n"
    finally:
        await rest.aclose()
        completion.trace(progress)
