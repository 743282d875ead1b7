"""OpenTelemetry spans of what a request goes through, sent to a collector over OTLP/HTTP. Needs `recops[otel]`.

In: the address of a collector. Out: `span`, which costs next to nothing until `start` was called, and nothing of
OpenTelemetry is imported before. The provider is of our own, since BentoML has one for itself. What the SDK reads of
`OTEL_*` variables holds: OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES. No span names a
user.
"""

import threading
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from recops.errors import CallError

Scope = MutableMapping[str, Any]

EXTRA = "opentelemetry.exporter.otlp.proto.http"
TRACES = "/v1/traces"
LAST_S = 2.0
_NOTHING: AbstractContextManager[Any] = nullcontext()
_sender: "_Sender | None" = None


def traces_url(text: str | None, setting: str) -> str | None:
    """Where a collector at `text` takes traces; None for None. Raises CallError naming `setting` for what is no
    address, and where the extra is missing."""
    if text is None:
        return None
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise CallError(f"{setting}: expected the address of a collector such as http://127.0.0.1:4318, found {text!r}")
    try:
        found = find_spec(EXTRA)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise CallError(f"{setting}: traces need the package {EXTRA}: pip install 'recops[otel]'")
    return text if url.path.endswith(TRACES) else text.rstrip("/") + TRACES


class _Sender:
    """Makes spans and sends them to `url` from a thread of its own."""

    def __init__(self, url: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.api, self.propagator = trace, TraceContextTextMapPropagator()
        resource = Resource.create({SERVICE_NAME: "recops"}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.exporter = OTLPSpanExporter(endpoint=url)
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("recops.serving")

    @property
    def context(self) -> Any:
        """Of the span that is being made; None outside of a request."""
        context = self.api.get_current_span().get_span_context()
        return context if context.is_valid else None

    def close(self) -> None:
        # On a thread: a collector that does not answer is tried again and again until the exporter is shut down.
        last = threading.Thread(target=self.provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(LAST_S)
        self.exporter.shutdown()


def start(url: str) -> None:
    """Spans are made from now on, and sent to `url`."""
    global _sender
    _sender = _Sender(url)


def stop() -> None:
    """Sends what there is, for LAST_S at most; no more spans are made."""
    global _sender
    sender, _sender = _sender, None
    if sender is not None:
        sender.close()


def span(name: str) -> AbstractContextManager[Any]:
    """A part of the request that is being answered, as long as it is entered; nothing outside of one."""
    sender = _sender
    if sender is None or sender.context is None:
        return _NOTHING
    return sender.tracer.start_as_current_span(name)


def trace_id() -> str | None:
    """32 hex digits of the trace that is being made; None where there is none."""
    context = None if _sender is None else _sender.context
    return None if context is None else f"{context.trace_id:032x}"


class Traced:
    """Wraps an ASGI app: a span of each request, part of the caller's trace where it sends a W3C `traceparent`.

    `attributes` says, once a request is answered, what it was: `http.route` and others. `probes`: paths without spans.
    """

    def __init__(
        self, app: Any, attributes: Callable[[Scope], dict[str, Any]], probes: Collection[str] = frozenset()
    ) -> None:
        self.app, self.attributes, self.probes = app, attributes, probes

    async def __call__(self, scope: Scope, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        sender = _sender
        if sender is None or scope["type"] != "http" or scope["path"] in self.probes:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status = 0

        async def sending(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with sender.tracer.start_as_current_span(
            scope["method"], context=sender.propagator.extract(headers), kind=sender.api.SpanKind.SERVER
        ) as made:
            try:
                await self.app(scope, receive, sending)
            finally:
                found = self.attributes(scope)
                made.update_name(f"{scope['method']} {found['http.route']}")
                made.set_attributes(found)
                made.set_attribute("http.request.method", scope["method"])
                made.set_attribute("http.response.status_code", status)
                if status >= 500:
                    made.set_status(sender.api.StatusCode.ERROR)
