"""Spans reach a collector that speaks OTLP/HTTP, here an HTTP server of the test; without a setting there are none."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import pytest

from recops.errors import CallError
from recops.serving import tracing
from recops.serving.settings import read_settings

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes traces at `url`: `bodies` as they arrived, by path."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, dict[str, str], bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.bodies.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def spans(self) -> list:
        import gzip

        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for path, headers, body in self.bodies:
            assert path == tracing.TRACES and headers["content-type"] == "application/x-protobuf"
            body = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                assert attributes(resource.resource)["service.name"] == "recops"
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def attributes(one) -> dict:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in one.attributes}


@pytest.fixture
def collector(monkeypatch):
    pytest.importorskip(tracing.EXTRA, reason="recops[otel] is not installed")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    collector = Collector()
    yield collector
    tracing.stop()
    collector.close()


@pytest.fixture
def served(serve, collector):
    url = read_settings({"RECOPS_OTLP": collector.url}).otlp
    served = serve({"otlp": url})
    tracing.start(url)
    return served


def test_a_request_is_a_trace_of_what_it_went_through(served, collector):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = served.client.post("/recommend", json={"user_id": "u1", "diversity": 0.5}, headers=headers)
    served.client.post("/recommend", json={"user_id": "u1"})
    tracing.stop()
    spans = collector.spans()
    mine = [span for span in spans if span.trace_id.hex() == TRACE]
    (request,) = [span for span in mine if span.name == "POST /recommend"]
    assert (request.parent_span_id.hex(), request.kind) == (PARENT, 2)  # SPAN_KIND_SERVER
    assert attributes(request) == {
        "http.route": "/recommend",
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "recops.request_id": answer.headers["x-request-id"],
        "recops.release": served.state.release.id,
    }
    by_id = {span.span_id: span for span in mine}
    parts = {(span.name, by_id[span.parent_span_id].name) for span in mine if span is not request}
    assert parts == {
        ("history", "POST /recommend"),
        ("scoring", "POST /recommend"),
        ("rules", "scoring"),
        ("reordering", "scoring"),
        ("log", "POST /recommend"),
    }
    for span in mine:
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    # A call without a parent is a trace of its own, and no span of another request got into it.
    other = [span for span in spans if span.trace_id.hex() != TRACE]
    assert len({span.trace_id for span in other}) == 1
    assert sorted(span.name for span in other) == ["POST /recommend", "history", "log", "rules", "scoring"]


def test_a_batch_and_events_have_spans_and_probes_have_none(served, collector):
    requests = [{"history": ["b"]}] * 20
    served.post("/recommend/batch", requests=requests)
    event = {"user_id": "u1", "item_id": "b", "event": "view", "timestamp": "2026-01-01T00:00:00Z"}
    served.post("/events", events=[event])
    served.client.get("/livez")
    tracing.stop()
    by_trace: dict[bytes, list[str]] = {}
    for span in collector.spans():
        by_trace.setdefault(span.trace_id, []).append(span.name)
    batch, events = sorted(map(sorted, by_trace.values()), key=len, reverse=True)
    assert {name: batch.count(name) for name in batch} == {
        "POST /recommend/batch": 1,
        "history": 1,
        "scoring": 2,  # sixteen lists at a time
        "rules": 20,
        "log": 2,
    }
    assert events == ["POST /events", "log"]


def test_failures_are_errors_and_no_user_is_named(served, collector, monkeypatch):
    served.client.get("/users/secret-user")
    served.client.post("/recommend", json={"k": 0})
    monkeypatch.setattr(served.state, "history_soon", lambda *_: 1 / 0)
    served.client.post("/recommend", json={"user_id": "secret-user"})
    tracing.stop()
    spans = collector.spans()
    asked = [(span.name, attributes(span), span.status.code) for span in spans if span.kind == 2]
    requests = {(name, about["http.response.status_code"], code) for name, about, code in asked}
    assert requests == {("GET /users/{user_id}", 200, 0), ("POST /recommend", 400, 0), ("POST /recommend", 500, 2)}
    assert "secret-user" not in str(spans)
    (history,) = [span for span in spans if span.name == "history"]
    assert (history.status.code, attributes(history.events[0])["exception.type"]) == (2, "ZeroDivisionError")


def test_a_trace_that_the_caller_does_not_sample_is_not_sent(served, collector):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert served.client.post("/recommend", json={"user_id": "u1"}, headers=headers).status_code == 200
    tracing.stop()
    assert collector.spans() == []


def test_a_collector_that_does_not_answer_keeps_nobody(serve, caplog, monkeypatch):
    pytest.importorskip(tracing.EXTRA, reason="recops[otel] is not installed")
    monkeypatch.setattr(tracing, "LAST_S", 0.2)
    served = serve({"otlp": "http://127.0.0.1:9/v1/traces"})  # nothing listens there
    tracing.start("http://127.0.0.1:9/v1/traces")
    assert served.client.post("/recommend", json={"user_id": "u1"}).status_code == 200
    start = monotonic()
    tracing.stop()
    assert monotonic() - start < 5


@pytest.mark.parametrize("text", ["127.0.0.1:4318", "ftp://host", "http://", "http:///v1/traces"])
def test_an_address_that_is_none_is_named(text):
    with pytest.raises(CallError, match=r"RECOPS_OTLP \(serve\.otlp\): expected the address of a collector"):
        read_settings({"RECOPS_OTLP": text})


def test_the_address_of_traces_is_made_of_the_collector_s(collector):
    for text in ("http://h:4318", "http://h:4318/", "http://h:4318/v1/traces"):
        assert read_settings({"RECOPS_OTLP": text}).otlp == "http://h:4318/v1/traces"
    assert read_settings({"RECOPS_OTLP": "https://h/otlp"}).otlp == "https://h/otlp/v1/traces"


@pytest.mark.parametrize("missing", ["opentelemetry.nothing", "nothing.at.all"])
def test_a_missing_extra_is_named(missing, monkeypatch):
    monkeypatch.setattr(tracing, "EXTRA", missing)
    with pytest.raises(CallError, match=rf"RECOPS_OTLP.*{missing}: pip install 'recops\[otel\]'"):
        read_settings({"RECOPS_OTLP": "http://h:4318"})


def test_without_the_setting_nothing_of_it_is_imported():
    code = (
        "import sys, recops.serving.app, recops.serving.state as s; from recops.serving import tracing;"
        "from recops.serving.settings import Settings; app = recops.serving.app.build_app(s.State(Settings()));"
        "tracing.span('x').__enter__(); assert tracing.trace_id() is None;"
        "print(type(app).__name__, [m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Guard []\n"
