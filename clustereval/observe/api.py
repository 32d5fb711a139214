"""The calls that looking at a target needs; every failure says what to change."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import httpx

from clustereval.core import wire
from clustereval.core.errors import TargetError
from clustereval.core.proxies import proxy_for
from clustereval.core.trust import untrusted
from clustereval.core.urls import BASE_URL, split_url
from clustereval.observe.chat import Answer, chat
from clustereval.observe.http import http_client


def open_client(url: str, key: str | None, timeout_s: float) -> httpx.Client:
    """A client that sends the key to this host alone.

    Raises:
        TargetError: ``url`` is none, or holds credentials.
    """
    split_url(url, "--target", BASE_URL)
    return http_client(url, timeout_s, {"Authorization": f"Bearer {key}"} if key else {})


class Models(NamedTuple):
    """What a target lists: all ids, and which of them are LoRA adapters."""

    ids: list[str]
    adapters: frozenset[str] = frozenset()


class Api:
    """The two calls that are needed, with every failure turned into a :class:`TargetError`."""

    def __init__(self, client: httpx.Client, url: str, api_key_env: str | None):
        self._client = client
        self._url = url.rstrip("/")
        self._key_env = api_key_env
        self.proxy = proxy_for(urlsplit(url))
        """The proxy on the way, or null."""
        self.plain = False
        """The target does not take ``stream_options``."""

    def models(self) -> Models | None:
        """What ``/models`` lists; null where the target has no such path."""
        response = self._get(f"{self._url}/models")
        if response.status_code == 404:
            self._suggest_v1()
            return None
        self._require_ok(response)
        try:
            data = response.json()["data"]
            # vLLM lists LoRA adapters beside the models, with the model that they are one of.
            adapters = [str(item["id"]) for item in data if item.get("parent")]
            return Models([str(item["id"]) for item in data], frozenset(adapters))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._no_api("/models answered something else than a list of models") from None

    def ask(self, model: str, rank: int | None = None) -> Answer:
        """One tiny chat completion, streamed."""
        headers = {wire.REQUEST_ID: f"clustereval-{uuid4().hex}"}
        headers[wire.TRACEPARENT] = wire.traceparent(uuid4().hex, uuid4().hex[:16])
        if rank is not None:
            headers[wire.PIN] = f"rank:{rank}"
        try:
            answer = chat(self._client, self._url, model, headers, usage=not self.plain)
            if answer.status in (400, 422) and not self.plain:
                # Older servers refuse stream_options.
                answer = chat(self._client, self._url, model, headers, usage=False)
                self.plain = answer.status == 200
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        self._require_ok(answer.response)
        if answer.problem is not None:
            raise self._no_api(f"/chat/completions: {answer.problem}")
        return answer

    def prompt_tokens(
        self, model: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
    ) -> int:
        """How many tokens the target makes of a prompt, by its own usage; generates one."""
        body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": 1}
        if tools:
            body["tools"] = tools
        headers = {wire.REQUEST_ID: f"clustereval-{uuid4().hex}"}
        try:
            response = self._client.post(
                f"{self._url}/chat/completions", json=body, headers=headers
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if response.status_code == 400:
            raise TargetError(
                f"{self._url}/chat/completions: HTTP 400 for a prompt of "
                f"{sum(len(str(m['content'])) for m in messages)} characters: "
                f"{self._excerpt(response)}",
                expected="a target whose context holds the trace's prompts",
                change="cut them: `max_input_tokens` in the trace's phase",
            )
        self._require_ok(response)
        try:
            tokens = response.json()["usage"]["prompt_tokens"]
        except (ValueError, KeyError, TypeError):
            tokens = None
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
            raise TargetError(
                f"{self._url}: its answers have no usage.prompt_tokens",
                expected="token counts, by which prompts get a trace's lengths",
                change="leave prompts as they are: `lengths: false` in the trace's phase",
            )
        return tokens

    def _get(self, url: str) -> httpx.Response:
        try:
            return self._client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None

    def _suggest_v1(self) -> None:
        if self._url.endswith("/v1"):
            return
        response = self._get(f"{self._url}/v1/models")
        if response.status_code != 404:
            raise TargetError(
                f"{self._url}/models: HTTP 404, but {self._url}/v1/models is there",
                expected="the API's base URL",
                change=f"use --target {self._url}/v1",
            )

    def _require_ok(self, response: httpx.Response) -> None:
        status, where = response.status_code, f"{self._url}{self._path(response)}"
        if status == 200:
            return
        body = self._excerpt(response)
        if status in (401, 403):
            change = (
                f"check the key in {self._key_env}"
                if self._key_env
                else "name the environment variable with the key by --api-key-env"
            )
            raise TargetError(
                f"{where}: HTTP {status}: {body}", expected="an API key it accepts", change=change
            )
        if 300 <= status < 400:
            location = urljoin(str(response.url), response.headers.get("location", ""))
            raise TargetError(
                f"{where}: HTTP {status}: it redirects to {location[:300]}",
                expected="the API itself: redirects are not followed, the key might go elsewhere",
                change="give that URL's base to --target, if you trust it",
            )
        if status == 404:
            raise TargetError(
                f"{where}: HTTP 404: {body}",
                expected="an OpenAI-compatible API that serves the model",
                change="check --target (it usually ends in /v1) and --model",
            )
        if status == 429:
            wait = response.headers.get("retry-after")
            raise TargetError(
                f"{where}: HTTP 429 before any load"
                + (f", Retry-After {wait[:40]}" if wait else ""),
                expected="a target that takes requests",
                change="wait, or raise its rate limit for the test's key",
            )
        raise TargetError(
            f"{where}: HTTP {status}: {body}",
            expected="HTTP 200",
            change="see the target's own log",
        )

    def _path(self, response: httpx.Response) -> str:
        return response.url.path.removeprefix(urlsplit(self._url).path)

    def _excerpt(self, response: httpx.Response) -> str:
        """The start of the body; a server that echoes the key must not get it into our message."""
        text = response.text
        key = self._client.headers.get("Authorization", "").removeprefix("Bearer ")
        for secret in (key, *(self.proxy.secrets if self.proxy else ())):
            if secret:
                text = text.replace(secret, "***")
        return " ".join(text.split())[:300] or "no body"

    def _no_api(self, found: str) -> TargetError:
        return TargetError(
            f"{self._url}: {found}",
            expected="an OpenAI-compatible API",
            change="check --target: it usually ends in /v1",
        )

    def _unreachable(self, error: Exception) -> TargetError:
        host = urlsplit(self._url).hostname
        reasons = list(_chain(error))
        text = "; ".join(str(reason) for reason in reasons).lower()
        refused = next((told for reason in reasons if (told := untrusted(reason))), None)
        if refused is not None:
            what, change = refused, "see above; or check --target's host name"
        elif isinstance(error, httpx.TimeoutException):
            what, change = "no answer in time", "check that it is up, and --target's port"
        elif any(isinstance(reason, ssl.SSLError) for reason in reasons) or "ssl" in text:
            what = f"TLS failed: {error}"
            change = "check http:// against https://, and the certificate (SSL_CERT_FILE)"
        elif self.proxy is not None and isinstance(error, httpx.ProxyError | httpx.ConnectError):
            what = f"the proxy {self.proxy} ({self.proxy.variable}): {error}"
            change = f"check {self.proxy.variable}, or go past it: NO_PROXY={host}"
        elif any(sign in text for sign in _DNS_SIGNS):
            what, change = f"the host {host!r} is not known: {error}", "check --target's host name"
        elif isinstance(error, httpx.ConnectError):
            what = f"nothing listens there: {error}"
            change = "start the target, or check --target's port"
        else:
            what, change = f"{type(error).__name__}: {error}", "check --target"
        return TargetError(
            f"{self._url}: {what}", expected="a reachable OpenAI-compatible API", change=change
        )


_DNS_SIGNS: Final = (
    "name or service not known",
    "nodename nor servname",
    "name resolution",
    "no address associated",
    "getaddrinfo",
)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
