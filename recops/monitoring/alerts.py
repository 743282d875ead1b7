"""Sends alerts: to a webhook, to a chat that takes Slack's format, by e-mail.

In: an alert, the settings, secrets of the environment. Out: what each channel came to. Decides nothing, keeps nothing,
and names no secret in what it says of a failure: the address of a chat is one.
"""

import hashlib
import hmac
import json
import os
import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from email.message import EmailMessage
from typing import Any

import httpx

from recops.params import AlertParams, EmailParams

WEBHOOK, SLACK, EMAIL = "webhook", "slack", "email"
TIMEOUT_S = 5.0
SECRETS = {  # channel: variables that name where to send, or who sends
    WEBHOOK: ("RECOPS_ALERT_WEBHOOK", "RECOPS_ALERT_WEBHOOK_SECRET"),
    SLACK: ("RECOPS_ALERT_SLACK",),
    EMAIL: ("RECOPS_ALERT_SMTP_PASSWORD",),
}


@dataclass(frozen=True)
class Alert:
    """`kind` as in `alerts.kinds`; `text` says in a sentence what happened, `todo` what to do; `facts` are JSON."""

    kind: str
    project: str
    text: str
    todo: str
    at: str  # ISO
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same thing said again."""
        return hashlib.sha256(f"{self.kind}\n{self.text}".encode()).hexdigest()[:16]

    @property
    def subject(self) -> str:
        """One line, whatever names hold."""
        return " ".join(f"recops {self.project}: {self.kind.replace('_', ' ')}".split())


def channels(params: AlertParams, environment: Mapping[str, str] = os.environ) -> dict[str, Callable[[Alert], None]]:
    """What is set up, by name: called with an alert, each sends it or raises OSError or httpx.HTTPError."""
    found: dict[str, Callable[[Alert], None]] = {}
    if url := environment.get("RECOPS_ALERT_WEBHOOK") or params.webhook:
        secret = environment.get("RECOPS_ALERT_WEBHOOK_SECRET")
        found[WEBHOOK] = lambda alert: _post(url, json.dumps(asdict(alert), sort_keys=True), secret)
    if chat := environment.get("RECOPS_ALERT_SLACK"):
        found[SLACK] = lambda alert: _post(chat, json.dumps({"text": slack_text(alert)}), None)
    if (email := params.email) is not None:
        password = environment.get("RECOPS_ALERT_SMTP_PASSWORD")
        found[EMAIL] = lambda alert: _mail(email, alert, password)
    return found


def send(alert: Alert, to: Mapping[str, Callable[[Alert], None]]) -> dict[str, str | None]:
    """Sends to every channel; for each None, or why it failed. Never raises."""
    result: dict[str, str | None] = {}
    for name, deliver in to.items():
        try:
            deliver(alert)
            result[name] = None
        except httpx.HTTPStatusError as error:
            result[name] = f"answered {error.response.status_code}"
        except Exception as error:  # an alert that fails fails nothing else
            result[name] = type(error).__name__  # its words may hold an address
    return result


def slack_text(alert: Alert) -> str:
    """Slack's own marks are taken out, so that a name of an item cannot call a whole channel."""
    text = f"{alert.subject}\n{alert.text}\n{alert.todo}"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(url: str, body: str, secret: str | None) -> None:
    headers = {"content-type": "application/json"}
    if secret:
        # As most receivers check it: a HMAC of the body as it was sent.
        digest = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
        headers["x-recops-signature"] = f"sha256={digest}"
    # What is answered is not read: it could be without end.
    with httpx.stream("POST", url, content=body, headers=headers, timeout=TIMEOUT_S) as answer:
        answer.raise_for_status()


def _mail(params: EmailParams, alert: Alert, password: str | None) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = alert.subject, params.sender, ", ".join(params.to)
    facts = json.dumps(dict(alert.facts), indent=2, sort_keys=True, ensure_ascii=False)
    message.set_content(f"{alert.text}\n\n{alert.todo}\n\n{alert.at}\n{facts}\n")
    context = ssl.create_default_context()
    if params.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(params.host, params.port, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(params.host, params.port, timeout=TIMEOUT_S)
    with server:
        if params.security == "starttls":
            server.starttls(context=context)
        if params.user is not None:
            server.login(params.user, password or "")
        server.send_message(message)
