"""`recops score-all` beside the product of the same matrices alone.

A release of SASRec (width 64, histories of 50) over 100,000 items, users with histories in the store, every core. The
bound is the product alone: as many processes multiply users with all items, in that of three shapes which is cheapest.
Shares are of CPU time, since a machine that does other work changes wall time; that of the process which writes the
file counts. What the encoder takes, and the start of the processes, are told apart. Some lists are compared with those
of POST /recommend.
"""

import multiprocessing
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.control import NUM_ITEMS, item_ids, make_bundle
from benchmarks.serving.servers import ONE_THREAD

WIDTH, HISTORY, K = 64, 50, 100
SHAPES = ((128, 4000), (128, NUM_ITEMS), (512, 512))  # users and items whose product is made at once
TARGET = 0.6
SAMPLE = 2048  # users of the product and the encoder alone
COMPARED = 500  # users whose lists are compared with those of POST /recommend


def product_cpu_s(users: int) -> float:
    """CPU seconds of the products alone, in the cheapest shape."""
    return min(product_times(users))


def product_times(users: int) -> list[float]:
    """CPU seconds in each of SHAPES."""
    rng = np.random.default_rng(0)
    items_ND = rng.standard_normal((NUM_ITEMS, WIDTH), np.float32)
    spent = []
    for block, width in SHAPES:
        users_BD = rng.standard_normal((block, WIDTH), np.float32)
        scores = np.empty(block * width, np.float32)
        tiles = [items_ND[start : start + width].T for start in range(0, NUM_ITEMS, width)]
        started = 0.0
        for number in range(-1, users // block):  # the first warms up
            started = time.process_time() if number == 0 else started
            for part in tiles:
                np.matmul(users_BD, part, out=scores[: block * part.shape[1]].reshape(block, -1))
        spent.append(time.process_time() - started)
    return spent


def encoder_cpu_s(bundle: Path, users: int) -> float:
    """CPU seconds of the encoder for so many users."""
    from recops.bundle import load_bundle

    scorer, rng = load_bundle(bundle).scorer, np.random.default_rng(0)
    histories = [rng.integers(1, NUM_ITEMS, HISTORY) for _ in range(32)]
    scorer.user_vectors(histories)
    started = time.process_time()
    for _ in range(0, users, 32):
        scorer.user_vectors(histories)
    return time.process_time() - started


def num_equal(project: Any, release_id: str, lists: Path, num: int) -> int:
    """How many of `num` users have the list, scores included, that POST /recommend gives them."""
    import polars as pl

    from recops.serving.local import as_served
    from recops.serving.requests import Recommend
    from recops.serving.retrieval import recommend
    from recops.serving.state import stored_of
    from recops.store import open_store

    store = open_store(project.store_url)
    release, _ = as_served(project.releases, release_id, store, None)
    equal = 0
    for user_id, items, scores, source in pl.read_parquet(lists).sample(num, seed=0).iter_rows():
        (stored,) = stored_of(store, release, [user_id])
        answer = recommend(release, Recommend(user_id=user_id, k=K), stored)
        told = [(item["item_id"], item["score"]) for item in answer["items"]]
        equal += told == list(zip(items, scores, strict=True)) and source == answer["source"]
    return equal


def both_at_once(what: Any, *arguments: Any, workers: int) -> float:
    """The mean of what `workers` processes measure at the same time."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return float(np.mean(pool.starmap(what, [arguments] * workers)))


def measure(quick: bool) -> dict[str, Any]:
    os.environ.update(ONE_THREAD)
    from recops.release.releases import Parts, promote
    from recops.stages.project import open_project
    from recops.stages.score_all import score_all
    from recops.store import open_store

    users = 4096 if quick else 32_768
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "params.yaml").touch()
        project = open_project(root)
        make_bundle(project.bundle, WIDTH, HISTORY)
        rng, names = random.Random(1), item_ids()
        store = open_store(project.store_url)
        now = "2026-01-01T00:00:00+00:00"
        release = promote(project.bundle, project.releases, store, Parts([]), expected=None, now=now)

        def spent() -> float:
            used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
            return sum(one.ru_utime + one.ru_stime for one in used)

        def run(num: int) -> tuple[float, float]:
            """CPU and wall seconds for the first `num` users."""
            first = ((f"user-{n:07d}", rng.sample(names, HISTORY), None) for n in range(num))
            store.put_histories(release, first)
            before, started = spent(), time.perf_counter()
            part = max(32, num // (4 * workers))
            score_all(project, root / "all.parquet", K, workers, say=lambda text: None, users_a_part=part)
            return spent() - before, time.perf_counter() - started

        def bound_s() -> float:
            return both_at_once(product_cpu_s, SAMPLE, workers=workers) / SAMPLE

        def encoder_s() -> float:
            return both_at_once(encoder_cpu_s, project.bundle, SAMPLE, workers=workers) / SAMPLE

        # Before and after, since the machine's other work comes and goes.
        bounds, encoders = [bound_s()], [encoder_s()]
        start_s, _ = run(32 * workers)
        cpu_s, wall_s = run(users)
        bound, encoder = np.mean([*bounds, bound_s()]), np.mean([*encoders, encoder_s()])
        size = (root / "all.parquet").stat().st_size
        equal = num_equal(project, release, root / "all.parquet", COMPARED)
    each = (cpu_s - start_s) / users
    million_h = (each * 1e6 + start_s) / workers / 3600
    print(f"CPU a user: score-all {each * 1e6:.0f} µs, encoder {encoder * 1e6:.0f} µs, product {bound * 1e6:.0f} µs")
    print(
        f"product / (score-all - encoder): {bound / (each - encoder):.2f}; product / score-all: {bound / each:.2f}; "
        f"(product + encoder) / score-all: {(bound + encoder) / each:.2f}"
    )
    print(f"{equal} of {COMPARED} lists are those of POST /recommend, scores included")
    sum_s = f"({each * 1e6:.0f} µs x 1,000,000 + {start_s:.0f} s to start) / {workers} cores"
    print(f"1,000,000 users: {sum_s} = {million_h * 60:.1f} minutes")
    return {
        "users": users,
        "workers": workers,
        "start_cpu_s": start_s,
        "cpu_us_a_user": each * 1e6,
        "encoder_us_a_user": float(encoder * 1e6),
        "product_us_a_user": float(bound * 1e6),
        "share_of_bound_without_encoder": float(bound / (each - encoder)),
        "share_of_bound": float(bound / each),
        "share_of_bound_and_encoder": float((bound + encoder) / each),
        "lists_compared": COMPARED,
        "lists_equal": equal,
        "target_share": TARGET,
        "wall_s": wall_s,
        "file_mb": size / 1e6,
        "minutes_for_a_million_users": million_h * 60,
        "k": K,
    }
