"""Alerts as receivers on this machine get them: a webhook, a chat, a mail server."""

import email
import email.policy
import hashlib
import hmac
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from recops.errors import CallError
from recops.monitoring.alerts import Alert, channels, send
from recops.params import AlertParams, checked

pytestmark = pytest.mark.process
ALERT = Alert("refused_data", "shop", "validate refused: <!channel> ü.", "look", "2026-01-02T03:00:00+00:00", {"n": 1})


class Receiver:
    """What came in over HTTP, and how it is answered."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.code = 200
        self.url = ""


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(found.code)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(HTTPServer(("127.0.0.1", 0), Handler)) as port:
        found.url = f"http://127.0.0.1:{port}/hook/secret"
        yield found


@pytest.fixture
def mails() -> Iterator[tuple[int, list[tuple[list[str], EmailMessage]]]]:
    """Port of a mail server, and what it took: who it goes to, and the message."""
    taken: list[tuple[list[str], EmailMessage]] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            to: list[str] = []
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().decode().strip():
                word = line.split()[0].upper()
                if word == "RCPT":
                    to.append(line.split("<")[1].split(">")[0])
                if word == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                    assert isinstance(message, EmailMessage)
                    taken.append((to, message))
                self.wfile.write(b"221 bye\r\n" if word == "QUIT" else b"250 ok\r\n")
                if word == "QUIT":
                    return

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port, taken


def test_the_webhook_gets_signed_json(receiver: Receiver) -> None:
    environment = {"RECOPS_ALERT_WEBHOOK_SECRET": "s3cret"}
    assert send(ALERT, channels(AlertParams(webhook=receiver.url), environment)) == {"webhook": None}
    headers, body = receiver.calls[0]
    assert json.loads(body)["kind"] == "refused_data" and json.loads(body)["facts"] == {"n": 1}
    assert headers["x-recops-signature"] == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["content-type"] == "application/json"


def test_the_environment_names_the_webhook_first(receiver: Receiver) -> None:
    params = AlertParams(webhook="http://127.0.0.1:9/")
    assert send(ALERT, channels(params, {"RECOPS_ALERT_WEBHOOK": receiver.url})) == {"webhook": None}
    assert "x-recops-signature" not in receiver.calls[0][0]


def test_a_chat_gets_text_that_calls_nobody(receiver: Receiver) -> None:
    assert send(ALERT, channels(AlertParams(), {"RECOPS_ALERT_SLACK": receiver.url})) == {"slack": None}
    body = json.loads(receiver.calls[0][1])
    assert list(body) == ["text"] and "&lt;!channel&gt; ü." in body["text"] and "<" not in body["text"]


def test_a_mail_arrives(mails: tuple[int, list[tuple[list[str], EmailMessage]]]) -> None:
    port, taken = mails
    address = {"to": ["a@shop.example", "b@shop.example"], "sender": "recops@shop.example"}
    params = checked(
        AlertParams, {"email": {**address, "host": "127.0.0.1", "port": port, "security": "none"}}, "alerts"
    )
    assert send(ALERT, channels(params, {})) == {"email": None}
    to, message = taken[0]
    assert to == address["to"] and message["Subject"] == "recops shop: refused data"
    assert "validate refused: <!channel> ü." in message.get_content()


@pytest.mark.parametrize("code", [302, 404, 500])
def test_a_receiver_that_does_not_take_it_is_told_of(receiver: Receiver, code: int) -> None:
    receiver.code = code
    assert send(ALERT, channels(AlertParams(webhook=receiver.url), {})) == {"webhook": f"answered {code}"}


def test_one_channel_that_fails_keeps_no_other_from_it(receiver: Receiver) -> None:
    params = AlertParams(webhook="http://127.0.0.1:9/hook/secret")
    result = send(ALERT, channels(params, {"RECOPS_ALERT_SLACK": receiver.url}))
    assert result["slack"] is None and result["webhook"] == "ConnectError"  # and not the address


def test_a_name_with_a_line_break_adds_no_header(mails: tuple[int, list[tuple[list[str], EmailMessage]]]) -> None:
    port, taken = mails
    address = {"to": ["a@shop.example"], "sender": "r@shop.example", "host": "127.0.0.1", "port": port}
    params = checked(AlertParams, {"email": {**address, "security": "none"}}, "alerts")
    alert = Alert("failed_gate", "shop\nBcc: x@y.example", "t", "t", "2026-01-02T03:00:00+00:00")
    assert send(alert, channels(params, {})) == {"email": None}
    assert taken[0][0] == ["a@shop.example"] and taken[0][1]["Bcc"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"webhook": "ftp://h"}, r"alerts\.webhook: .*http"),
        ({"kinds": ["fire"]}, r"alerts\.kinds\.0"),
        ({"email": {"to": [], "sender": "a@b", "host": "h"}}, r"alerts\.email\.to"),
        ({"email": {"to": ["a@b\nBcc: c@d"], "sender": "a@b", "host": "h"}}, r"alerts\.email\.to: .*no address"),
        (
            {"email": {"to": ["a@b"], "sender": "a@b", "host": "h", "user": "u", "security": "none"}},
            "would send the password",
        ),
    ],
)
def test_settings_that_cannot_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        checked(AlertParams, values, "alerts")
