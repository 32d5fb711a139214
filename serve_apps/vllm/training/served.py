"""``python -m serve_apps.vllm.training.served``: the model behind vLLM, asked over HTTP.

Starts vLLM's OpenAI server on this machine's CPU, once per strength of noise in the weights, asks
every prompt that ships for it with the OpenAI client, streaming and not, and prints how many
answers are exact.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from openai import OpenAI

from clustereval.core.prompts import Prompt, read_prompts
from clustereval.core.shipped import FOR_SMALL_MODEL, scenarios_dir
from clustereval.scoring import ToolCall
from serve_apps.vllm.training.evaluate import MOST_NEW_TOKENS, Answered, judge, kinds
from serve_apps.vllm.training.files import MODEL_DIR
from serve_apps.vllm.weights import perturbed_copy

KINDS: Final = ("qa", "json", "tool_call", "count")
NAME: Final = "clustereval-records"
READY_S: Final = 240.0
END_S: Final = 20.0
NOISE_SEED: Final = 1
CPU_ENVIRONMENT: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Threads pinned to cores would all be pinned to the same ones, one server beside the next.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def server(model: Path) -> Iterator[str]:
    """vLLM's own server for ``model``; gives its base URL, and ends it with its children.

    Raises:
        RuntimeError: it ended, or was not ready in time; with the end of its log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", NAME, "--host", "127.0.0.1",
        "--port", str(port), "--enforce-eager", "--block-size", "32", "--enable-prefix-caching",
        "--enable-prompt-tokens-details", "--enable-auto-tool-choice",
        "--tool-call-parser", "hermes", "--max-num-seqs", "16",
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **CPU_ENVIRONMENT},
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + READY_S
            while not _ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"vLLM did not come up; its log ends:\n{log.read()[-4000:]}")
                time.sleep(1.0)
            yield f"{url}/v1"
        finally:
            _end(process)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server's process group, which is its own."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(END_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def ask(client: OpenAI, prompt: Prompt, *, stream: bool) -> tuple[Answered, float]:
    """One prompt's answer as the scorer sees it, and its cached share of prompt tokens."""
    request: dict[str, Any] = {
        "model": NAME,
        "messages": [message.model_dump() for message in prompt.messages],
        "temperature": 0,
        "max_tokens": MOST_NEW_TOKENS,
    }
    if prompt.tools:
        request["tools"] = prompt.tools
    if not stream:
        response = client.chat.completions.create(**request)
        choice = response.choices[0]
        made = choice.message.tool_calls or []
        calls = [ToolCall(call.function.name, call.function.arguments) for call in made]
        text, finish, usage = choice.message.content or "", choice.finish_reason, response.usage
    else:
        text, finish, usage = "", "", None
        parts: dict[int, list[str]] = {}
        for chunk in client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or []:
                    part = parts.setdefault(call.index, ["", ""])
                    part[0] += call.function.name or ""
                    part[1] += call.function.arguments or ""
        calls = [ToolCall(name, arguments) for name, arguments in parts.values()]
    details = usage.prompt_tokens_details if usage else None
    cached = (details.cached_tokens or 0) / usage.prompt_tokens if usage and details else 0.0
    # vLLM ends with "tool_calls" where it found any: an end like "stop".
    return judge(prompt, text, calls, "length" if finish == "length" else "stop"), cached


def replay(url: str, prompts: Sequence[Prompt], *, stream: bool) -> tuple[list[Answered], str]:
    """Asks all prompts one after the other; the answers, and a line about times and cache."""
    client = OpenAI(base_url=url, api_key="none", max_retries=0)
    started = time.monotonic()
    asked = [ask(client, prompt, stream=stream) for prompt in prompts]
    each_ms = (time.monotonic() - started) / len(prompts) * 1000
    high = sum(cached > 0.85 for _, cached in asked) / len(asked)
    medium = sum(0.55 < cached <= 0.85 for _, cached in asked) / len(asked)
    shares = f"{each_ms:.0f} ms each; cache hit above 0.85: {high:.0%}, 0.55 to 0.85: {medium:.0%}"
    return [answered for answered, _ in asked], shares


def main() -> int:
    """Prints one row per strength and way of asking."""
    parser = argparse.ArgumentParser(prog="python -m serve_apps.vllm.training.served")
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0])
    parser.add_argument("--wrong", type=int, default=0, help="how many wrong answers to print")
    args = parser.parse_args()
    folder = scenarios_dir() / "prompts"
    prompts = list(read_prompts(*(folder / name for name in FOR_SMALL_MODEL)))
    print(
        f"| noise | asked | {' | '.join(KINDS)} | all |\n{'|---' * (len(KINDS) + 3)}|", flush=True
    )
    for strength in args.strengths:
        model = perturbed_copy(args.model, strength, NOISE_SEED) if strength else args.model
        with server(model) as url:
            for stream in (False, True) if not strength else (True,):
                answered, shares = replay(url, prompts, stream=stream)
                rates = kinds(answered)
                right = sum(right for right, _ in rates.values())
                cells = [f"{rates[name][0] / rates[name][1]:.1%}" for name in KINDS]
                way = "streaming" if stream else "whole"
                total = f"{right / len(answered):.1%}"
                print(f"| {strength} | {way} | {' | '.join([*cells, total])} |", flush=True)
                print(f"  {shares}", file=sys.stderr, flush=True)
                for item in [item for item in answered if item.problem][: args.wrong]:
                    print(f"  wrong: {item.prompt.id}: {item.problem}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
