"""The bare app that the service is measured against, and the bundle that both serve.

Control: Starlette and ONNX Runtime, the same encoder, the same product with all items, the same search for the best.
"""

import json
import os
from pathlib import Path

import numpy as np

NUM_ITEMS, K = 100_000, 10


def control_app():
    """The bare app, over the bundle in BENCHMARK_BUNDLE; started by uvicorn as a factory."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from recops.runtime import OnnxNetwork
    from recops.topk import top_k

    folder = Path(os.environ["BENCHMARK_BUNDLE"])
    encode = OnnxNetwork(folder / "model.onnx")
    vectors_DN = np.load(folder / "item_vectors.npy").T
    ids = ["", *json.loads((folder / "items.json").read_text(encoding="utf-8"))["item_id"]]
    row_of = {item_id: row for row, item_id in enumerate(ids)}

    async def recommend(request):
        body = await request.json()
        history_1L = np.array([[row_of[item_id] for item_id in body["history"]]], np.int64)
        rows_1K, best_1K = top_k(encode(history_1L) @ vectors_DN, body["k"])
        best = zip(rows_1K[0].tolist(), best_1K[0].tolist(), strict=True)
        return JSONResponse({"items": [{"item_id": ids[row], "score": score} for row, score in best]})

    return Starlette(routes=[Route("/recommend", recommend, methods=["POST"])])


def item_ids(num_items: int = NUM_ITEMS) -> list[str]:
    return [f"item-{row:06d}" for row in range(1, num_items + 1)]


def make_bundle(folder: Path, width: int, history: int, num_items: int = NUM_ITEMS) -> str:
    """A SASRec of random weights, exported as training does; every item has a price and one of twenty categories.
    Returns its release id."""
    from recops.models.sasrec import Sasrec
    from recops.release.export import export_bundle

    config = Sasrec.Config(embedding_dim=width, max_history=history)
    parts = Sasrec(config, num_users=1, num_items=num_items, seed=1).parts()
    ids = item_ids(num_items)
    facts = {"params": {}, "metrics": {}, "validation": {}, "inputs": {}, "data_watermark": None, "remove_seen": True}
    return export_bundle(
        parts,
        folder,
        items={
            "item_id": ids,
            "title": [f"Title {i}" for i in ids],
            "categories": [[f"category {row % 20}"] for row in range(num_items)],
            "price": [float(row % 100) for row in range(num_items)],
            "available": [row % 10 > 0 for row in range(num_items)],
            "published_at": [None] * num_items,
        },
        fallback=np.arange(num_items + 1, dtype=np.float32),
        profile={},
        facts={"model": "sasrec", **facts},
        opset=20,
        max_links=1,
    )
