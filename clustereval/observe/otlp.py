"""Spans to ``spans.jsonl``, and to an OTLP/HTTP endpoint where one was given."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlunsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from clustereval.core.urls import split_url
from clustereval.observe.spans import make_spans, otlp_json
from clustereval.rundir import SPANS, Run

BATCH = 512
TIMEOUT_S = 10.0
_EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@dataclass(frozen=True)
class ExportResult:
    """How many spans went where. ``problem`` says why some did not arrive, and what to change."""

    written: int
    exported: int
    url: str | None = None
    problem: str | None = None


def export_spans(
    run: Run, otlp_url: str | None = None, *, timeout_s: float = TIMEOUT_S
) -> ExportResult:
    """Writes the run's spans to ``spans.jsonl``, and sends them to ``otlp_url``.

    A collector that is away costs the export, not the run: the file is whole either way, and can
    be sent later. After the first batch that fails nothing more is sent.

    Args:
        run: a joined run.
        otlp_url: an OTLP/HTTP endpoint, with or without ``/v1/traces``. Headers, if it wants
            any, come from ``OTEL_EXPORTER_OTLP_HEADERS``, as with every OpenTelemetry exporter.
        timeout_s: for each batch, retries included.

    Raises:
        RunFolderError: the run was not joined, or the file cannot be written.
    """
    spans_left = make_spans(run.requests, run.manifest)
    sender = None if otlp_url is None else _Sender(traces_url(otlp_url), timeout_s)
    lines: list[str] = []
    written = exported = 0
    try:
        while spans := list(islice(spans_left, BATCH)):
            lines.append(otlp_json(spans))
            written += len(spans)
            if sender is not None and sender.problem is None and sender.send(spans):
                exported += len(spans)
    finally:
        if sender is not None:
            sender.close()
    run.write_text(SPANS, "".join(f"{line}\n" for line in lines))
    return ExportResult(
        written,
        exported,
        None if sender is None else sender.url,
        None if sender is None else sender.problem,
    )


def traces_url(url: str) -> str:
    """``url`` as the endpoint for traces: ``/v1/traces`` is added unless it is there.

    Raises:
        TargetError: no HTTP URL, or one with credentials.
    """
    whole = url if "://" in url else f"http://{url}"
    parts = split_url(whole, "--otlp", "an OTLP/HTTP endpoint: http://localhost:4318")
    path = parts.path.rstrip("/")
    if not path.endswith("/v1/traces"):
        path += "/v1/traces"
    return urlunsplit(parts._replace(path=path))


class _Sender:
    """The exporter, and the reason for its first failure: it logs that, and returns a bare enum."""

    def __init__(self, url: str, timeout_s: float):
        self.url = url
        self.problem: str | None = None
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=timeout_s)
        self._heard = _Listener()

    def send(self, spans: list[ReadableSpan]) -> bool:
        logger = logging.getLogger(_EXPORTER_LOGGER)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(self._heard)
        try:
            done = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # the exporter's transport raises what it likes
            self._heard.last, done = f"{type(error).__name__}: {error}", False
        finally:
            logger.removeHandler(self._heard)
            logger.propagate = propagate
        if not done:
            self.problem = (
                f"--otlp {self.url}: spans were not accepted: {self._heard.last or 'no reason'}\n"
                "expected: an OTLP/HTTP receiver (port 4318 by default; 4317 is gRPC)\n"
                "change:   check the URL; the spans are in spans.jsonl"
            )
        return done

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()[:300]
