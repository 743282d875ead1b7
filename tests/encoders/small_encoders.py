"""Encoders small enough to work out by hand: networks of one step on ONNX, in folders as the stage writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from recops import plugins

WORDS = {"[UNK]": 0, "red": 1, "green": 2, "blue": 3}
# What each word stands for; the text network gives the mean of its words.
MEANING = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 4]], np.float32)


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> None:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _value(name: str, kind: int, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


def text_network(path: Path) -> None:
    """token_idx, is_token int64 [B, T] -> mean of the meanings of the tokens that are there."""
    nodes = [
        helper.make_node("Gather", ["meaning", "token_idx"], ["each"]),
        helper.make_node("Cast", ["is_token"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["each", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "middle"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["vector"]),
    ]
    inputs = [_value(name, TensorProto.INT64, "batch", "tokens") for name in ("token_idx", "is_token")]
    constants = {"meaning": MEANING, "last": np.array([2]), "middle": np.array([1])}
    _save(path, nodes, inputs, [_value("vector", TensorProto.FLOAT, "batch", 3)], constants)


def picture_network(path: Path, size: int = 16) -> None:
    """pictures float32 [1, 3, size, size] -> the pictures themselves: averaged, their mean colour."""
    values = [_value(name, TensorProto.FLOAT, 1, 3, size, size) for name in ("pictures", "features")]
    _save(path, [helper.make_node("Identity", ["pictures"], ["features"])], values[:1], values[1:], {})


def sound_network(path: Path) -> None:
    """sound float32 [1, T] -> [1, T, 2]: each sample and its square."""
    nodes = [
        helper.make_node("Unsqueeze", ["sound", "last"], ["sample"]),
        helper.make_node("Mul", ["sample", "sample"], ["square"]),
        helper.make_node("Concat", ["sample", "square"], ["features"], axis=2),
    ]
    inputs, outputs = [_value("sound", 1, "batch", "time")], [_value("features", 1, "batch", "time", 2)]
    _save(path, nodes, inputs, outputs, {"last": np.array([2])})


def tokenizer(path: Path) -> None:
    """Words of WORDS, all others unknown."""
    made = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(path))


def made(name: str, folder: Path, dim: int, source: Path | None = None, settings: Any = (), **options: Any) -> Any:
    """The encoder of a folder that holds all but its settings, which are written here."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"sha256": "0" * 64, "dim": dim, "options": options, **dict(settings)}
    (folder / "settings.json").write_text(json.dumps(values))
    return plugins.load("encoders", name)(folder, 1, source)


def small_text(folder: Path, max_tokens: int = 16, **options: Any) -> Any:
    """The encoder of WORDS."""
    folder.mkdir(parents=True, exist_ok=True)
    text_network(folder / "model.onnx")
    tokenizer(folder / "tokenizer.json")
    prompts = {"document": "", "query": ""}
    return made("text", folder, 3, settings={"max_tokens": max_tokens, "prompts": prompts}, **options)


def small_image(folder: Path, source: Path | None = None, **options: Any) -> Any:
    """The encoder of mean colours, 0 for black."""
    folder.mkdir(parents=True, exist_ok=True)
    picture_network(folder / "model.onnx")
    plain = {"model": "mine.onnx", "size": 16, "mean": (0, 0, 0), "std": (1, 1, 1)}
    return made("image", folder, 3, source, **{**plain, **options})
