"""Torch modules to ONNX graphs that are the same bytes wherever they are made.

In: a module and samples of its inputs. Out: a checked graph in one file, its weights inside, nothing in it that names
folders or source lines. Knows nothing about models, encoders or bundles.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch

Dims = tuple[str | None, ...]  # names of the dynamic dimensions, None for a fixed one


def to_onnx(
    module: torch.nn.Module, inputs: Mapping[str, tuple[torch.Tensor, Dims]], output: str, opset: int
) -> onnx.ModelProto:
    """The graph of a module with `inputs` {name: (sample, name of each dynamic dimension)}, without node metadata."""
    with _quiet():
        program = torch.onnx.export(
            module.eval().cpu(),
            tuple(sample for sample, _ in inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple({i: d for i, d in enumerate(dims) if d} for _, dims in inputs.values()),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    for value, (_, dims) in zip(model.graph.input, inputs.values(), strict=True):
        _name_dims(value, dims)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Takes out what names the folder and the source lines the model was exported from."""
    graphs: list[Any] = [model.graph, *model.functions]
    model.doc_string = ""
    del model.metadata_props[:]
    while graphs:
        graph = graphs.pop()
        graph.doc_string = ""
        del graph.metadata_props[:]
        values = [*graph.value_info]
        if isinstance(graph, onnx.GraphProto):
            values += [*graph.input, *graph.output, *graph.initializer]
        for part in [*values, *graph.node]:
            part.doc_string = ""
            del part.metadata_props[:]
        for node in graph.node:
            for attribute in node.attribute:
                attribute.doc_string = ""
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs


def _name_dims(value: onnx.ValueInfoProto, dims: Dims) -> None:
    found = value.type.tensor_type.shape.dim
    assert len(found) == len(dims), f"{value.name}: {len(found)} dimensions, not {len(dims)}"
    for dim, name in zip(found, dims, strict=True):
        assert not name or dim.dim_param, f"{value.name}: {name} was fixed to {dim.dim_value} in the export"


def save_graph(model: onnx.ModelProto, path: Path, outputs: Mapping[str, Dims]) -> dict[str, Any]:
    """Writes the graph after checking it, and returns name, type and shape of what goes in and comes out."""
    for value, dims in zip(model.graph.output, outputs.values(), strict=True):
        _name_dims(value, dims)
    for tensor in model.graph.initializer:
        assert tensor.data_location == onnx.TensorProto.DEFAULT, f"{tensor.name}: weights lie outside the file"
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))

    def described(value: onnx.ValueInfoProto) -> dict[str, Any]:
        tensor = value.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        return {"name": value.name, "type": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, "shape": shape}

    return {"inputs": [*map(described, model.graph.input)], "outputs": [*map(described, model.graph.output)]}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals and about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
