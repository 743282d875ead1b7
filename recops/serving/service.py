"""The BentoML service: carries the ASGI app of app.py, and ties each worker process to its parent.

The app sits where BentoML puts middleware and answers every path itself: BentoML's own routes (`/livez`, `/readyz`,
`/metrics`, `/`) know nothing of releases, and its tracing, logging and request context cost more than a recommendation.
"""

import os
import sys
from pathlib import Path

# Before numpy is imported: one thread a worker unless told otherwise, so that workers do not fight for cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("RECOPS_THREADS") or "1")
os.environ.setdefault("OMP_NUM_THREADS", os.environ["OPENBLAS_NUM_THREADS"])
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml

from recops.serving import parent

# Before all else that takes time. BentoML gives a worker its number before it imports this file.
if bentoml.server_context.worker_index is None:
    parent.be_parent()
else:
    parent.follow_parent()

from recops.errors import CallError
from recops.serving import connections, counters, drain, logs, tracing
from recops.serving.app import build_app
from recops.serving.guard import Receive, Scope, Send
from recops.serving.settings import read_settings
from recops.serving.state import State

try:
    SETTINGS = read_settings()
except CallError as mistake:  # `recops serve` has read them before; a Bento starts here
    print(f"recops: {mistake}", file=sys.stderr)
    sys.exit(mistake.exit_code)
# The event loop waits for the interpreter whenever it has sent or received anything, while a thread makes batches or
# writes a log: so it is handed over ten times sooner than usual.
sys.setswitchinterval(0.0005)
logs.configure(SETTINGS.log_format, SETTINGS.access_log)
connections.watch()
STATE = State(SETTINGS)
APP = build_app(STATE)


@bentoml.service(
    name="recops",
    workers=SETTINGS.workers,
    # Ours ends a request first, in our shape. BentoML keeps a timer for every request until this has passed.
    # A language model may be asked twice for one answer.
    traffic={"timeout": max(SETTINGS.timeout_s, 2 * SETTINGS.ask_timeout_s) + 8},
    http={"host": "127.0.0.1", "port": 3000},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class RecopsService:
    def __init__(self) -> None:
        counters.forget_dead_workers()
        if SETTINGS.otlp is not None:
            tracing.start(SETTINGS.otlp)
        # In a Bento the bundle lies where release/bento.py put it.
        bento = RecopsService.bento  # type: ignore[attr-defined]
        own_bundle = None if bento is None else Path(bento.path_of("src/bundle"))
        STATE.start(own_bundle, each_poll=parent.end_without_parent)

    @bentoml.on_shutdown
    def close(self) -> None:
        STATE.close()
        tracing.stop()


class Layer:
    """Gives every HTTP request to our app, and the start and end of the process to BentoML."""

    def __init__(self, app: object) -> None:
        self.bento = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            drain.before_the_end(STATE)
        app = APP if scope["type"] == "http" else self.bento
        await app(scope, receive, send)  # type: ignore[operator]


RecopsService.add_asgi_middleware(Layer)  # type: ignore[attr-defined]
