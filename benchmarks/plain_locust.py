"""The load client that one writes with Locust alone, as a peer of :mod:`benchmarks.peers`.

FastHttpUser, one event per ``readline``, one ``json.loads`` per event: what its documentation and
the field's own Locust scripts come to, without their traps (``iter_lines`` reads blocks of 1 KiB,
``constant_throughput`` closes the loop). ``PEER_RATE`` opens the loop; without it each user sends
its next request when one has ended. Runs in an environment of its own, with nothing of ours.
"""

import json
import os
import time

import gevent
from locust import FastHttpUser, task
from locust.exception import StopUser

RATE = float(os.environ.get("PEER_RATE", "0"))
REQUESTS = int(os.environ["PEER_REQUESTS"])
OUT = os.environ["PEER_OUT"]
BODY = {
    "model": "mock",
    "messages": [{"role": "user", "content": "What is fact 1? " * 20}],
    "max_tokens": 128,
    "stream": True,
    "stream_options": {"include_usage": True},
}
sent = 0
ttfts = []


def quantile(values, share):
    return values[min(int(share * len(values)), len(values) - 1)]


class PlainUser(FastHttpUser):
    """Sends until there were ``PEER_REQUESTS``."""

    concurrency = 2048

    @task
    def load(self):
        """One request after another, or each when it is due."""
        if RATE:
            self.send_when_due()
        else:
            while self.take():
                self.one()
        self.finish()
        raise StopUser

    def take(self):
        global sent
        sent += 1
        return sent <= REQUESTS

    def send_when_due(self):
        begin = time.perf_counter() + 0.2
        sending = []
        for number in range(REQUESTS):
            gevent.sleep(max(begin + number / RATE - time.perf_counter(), 0))
            sending.append(gevent.spawn(self.one))
        gevent.joinall(sending)

    def one(self):
        begin = time.perf_counter()
        first = None
        with self.client.post(
            "/v1/chat/completions", json=BODY, stream=True, catch_response=True
        ) as response:
            while line := response._response.readline(b"\n\n"):
                data = bytes(line).strip().removeprefix(b"data: ")
                if data == b"[DONE]":
                    break
                choices = json.loads(data)["choices"] if data else None
                if choices and choices[0]["delta"].get("content") and first is None:
                    first = time.perf_counter()
            response.success()
        if first is not None:
            ttfts.append(1000 * (first - begin))

    def finish(self):
        if len(ttfts) >= REQUESTS:
            ordered = sorted(ttfts)
            told = {"p50": quantile(ordered, 0.5), "p99": quantile(ordered, 0.99)}
            with open(OUT, "w") as file:
                json.dump(told, file)
            self.environment.runner.quit()
