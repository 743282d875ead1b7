"""How long the real service takes to answer questions, what it weighs, and what a small language model makes of them.

In: the releases and questions of `benchmarks.ask`. Out: figures. One worker, one caller, HTTP included; no store.
"""

import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.questions import Asked
from benchmarks.serving.servers import ONE_THREAD, connect, server
from recops import bundle, language_model
from recops.errors import CallError
from recops.ports import free_port
from recops.serving.assistant import phrasing
from recops.serving.assistant.asking import ask
from recops.serving.assistant.catalogue import catalogue_of
from recops.serving.assistant.language_model import LanguageModel, LanguageModelError
from recops.serving.release import Release
from recops.serving.requests import Ask
from recops.words import write_words

NUM_ITEMS, MANY_ITEMS, NUM_TIMED = 10_000, 100_000, 400
SERVICE = ["-m", "bentoml", "serve", "recops.serving.service:RecopsService", "--host", "127.0.0.1", "--port"]


def wider(release: Release, folder: Path, num_items: int) -> Path:
    """A bundle of so many items: those of `release` again and again, with their own ids and the same vectors and words;
    links are of the first alone."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(release.bundle.folder, folder)
    source = np.arange(num_items) % release.bundle.num_items
    items = {name: [values[row] for row in source] for name, values in release.bundle.items.items()}
    items["item_id"] = [f"{item_id}-{place}" for place, item_id in enumerate(items["item_id"])]
    (folder / bundle.ITEMS).write_text(json.dumps(items), encoding="utf-8")
    scores = release.bundle.fallback[1:][source].tolist()
    (folder / bundle.FALLBACK).write_text(json.dumps({"scores": scores}), encoding="utf-8")
    indptr = np.load(folder / bundle.LINKS["indptr"])
    np.save(folder / bundle.LINKS["indptr"], np.pad(indptr, (0, num_items + 2), "edge")[: num_items + 2])
    for entry in release.bundle.encoders:
        vectors = release.bundle.content[entry["name"]]
        np.save(folder / entry["file"], np.concatenate([vectors[:1], vectors[1:][source]]))
    (folder / bundle.WORDS).unlink()
    write_words(folder / bundle.WORDS, zip(items["title"], [None] * num_items, items["categories"], strict=True))
    facts = {name: value for name, value in release.bundle.manifest.items() if name not in ("format_version", "files")}
    bundle.write_manifest(folder, {**facts, "num_items": num_items})
    return folder


def measure(releases: dict[str, Release], questions: dict[str, list[Asked]], work: Path, quick: bool) -> dict[str, Any]:
    """Times of /ask at 10,000 items, and memory at 100,000."""
    found: dict[str, Any] = {}
    sizes = [NUM_ITEMS] if quick else [NUM_ITEMS, MANY_ITEMS]
    for name, release in releases.items():
        known = release.row_of
        bodies = [
            {"question": a.question, "k": 10, "history": [f"{i}-{known[i] - 1}" for i in a.history or () if i in known]}
            for a in questions[name]
        ]
        for num_items in sizes:
            folder = wider(release, work / "wider", num_items)
            found[f"{name}, {num_items} items"] = _served(folder, bodies, 60 if quick else NUM_TIMED, work)
            shutil.rmtree(folder)
    return found


def _served(folder: Path, bodies: list[dict[str, Any]], num: int, work: Path) -> dict[str, float]:
    port = free_port()
    environment = {**ONE_THREAD, "RECOPS_BUNDLE": str(folder), "BENTOML_HOME": str(work / "bentoml")}
    with server([*SERVICE, str(port)], port, "GET /readyz", environment, work / "service.log") as pid:
        _ready(port)
        connection = connect(port)
        first = _ask(connection, bodies[0])
        times = [_ask(connection, bodies[i % len(bodies)]) for i in range(num)]
        connection.close()
        memory = max(_memory(child) for child in _family(pid))
    return {
        "num": num,
        "first_ms": 1000 * first,
        "median_ms": 1000 * statistics.median(times),
        "p95_ms": 1000 * float(np.quantile(times, 0.95)),
        "max_ms": 1000 * max(times),
        "worker_rss_mb": memory / 1e6,
    }


def _ready(port: int) -> None:
    for _ in range(600):
        connection = connect(port)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        time.sleep(0.1)
    raise TimeoutError("the service has no release")


def _ask(connection: Any, body: dict[str, Any]) -> float:
    start = time.perf_counter()
    connection.request("POST", "/ask", json.dumps(body).encode(), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = answer.read()
    took = time.perf_counter() - start
    assert answer.status == 200, told
    return took


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children").read_text(encoding="ascii").split()
        found += [int(child) for child in children]
    return found


def _memory(pid: int) -> int:
    """Resident bytes, shared pages of files included."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def with_model(releases: dict[str, Release], questions: dict[str, list[Asked]], num_each: int) -> dict[str, Any]:
    """What SmolLM2 writes for some questions: how often it passes the check, and how long an answer takes with it."""
    try:
        language_model.weights_file()
    except CallError as error:
        return {"left out": str(error)}
    times, outcomes = [], list[str]()
    started = time.perf_counter()
    with language_model.started(dict(os.environ)) as (url, key):
        load_s = time.perf_counter() - started
        model = LanguageModel(url, language_model.SMOLLM2, key, timeout_s=60, max_tokens=64, max_concurrency=1)
        for name, release in releases.items():
            catalogue = catalogue_of(release)
            for asked in questions[name][1::2][:num_each]:
                found = ask(release, Ask(question=asked.question, k=10), None)
                if not found.rows:
                    continue
                with catalogue.used_for(release):
                    messages = phrasing.messages(catalogue, found.wishes, asked.question, found.rows)
                start = time.perf_counter()
                try:
                    text = model.chat(messages)
                except LanguageModelError:
                    outcomes.append("failed")
                    continue
                finally:
                    times.append(time.perf_counter() - start)
                with catalogue.used_for(release):
                    wrong = phrasing.objection(text, catalogue, found.wishes, found.rows)
                outcomes.append(wrong or "used")
                print(f"{times[-1]:5.1f} s  {asked.question!r}\n         {text!r}: {outcomes[-1]}")
    return {
        "num": len(outcomes),
        "used": outcomes.count("used"),
        "load_s": load_s,
        "median_s": statistics.median(times),
        "p95_s": float(np.quantile(times, 0.95)),
        "refused": sorted(outcome for outcome in outcomes if outcome != "used"),
    }
