"""Weights that are no numbers are found wherever a graph can hold them."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from recops.errors import BundleError
from recops.onnx_weights import AT_ONCE, check_weights

WHOLE = np.array([[1.0, -np.inf], [3.0, 4.0]])
SPOILED = np.where(WHOLE == 3, np.nan, WHOLE)


def graph(name: str, nodes: list, tensors: list):
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("out", 1, None)], tensors)


def as_initializer(tensor):
    return helper.make_model(graph("g", [helper.make_node("Identity", ["w"], ["out"])], [tensor]))


def as_constant(tensor):
    return helper.make_model(graph("g", [helper.make_node("Constant", [], ["out"], value=tensor)], []))


def in_a_branch(tensor):
    branch = graph("b", [helper.make_node("Constant", [], ["out"], value=tensor)], [])
    node = helper.make_node("If", ["is"], ["out"], then_branch=branch, else_branch=branch)
    return helper.make_model(graph("g", [node], []))


def in_a_function(tensor):
    node = helper.make_node("Constant", [], ["out"], value=tensor)
    made = helper.make_function("own", "f", [], ["out"], [node], [helper.make_opsetid("", 20)])
    return helper.make_model(
        graph("g", [helper.make_node("f", [], ["out"], domain="own")], []),
        functions=[made],
    )


def raw(dtype):
    return lambda values: numpy_helper.from_array(values.astype(dtype), "w")


def listed(kind):
    return lambda values: helper.make_tensor("w", kind, values.shape, values.ravel().tolist())


WRITTEN = [raw(np.float32), raw(np.float16), raw(np.float64), listed(TensorProto.FLOAT), listed(TensorProto.DOUBLE)]


@pytest.mark.parametrize("placed", [as_initializer, as_constant, in_a_branch, in_a_function])
@pytest.mark.parametrize("written", WRITTEN)
def test_a_weight_that_is_no_number_is_found(tmp_path, placed, written):
    path = tmp_path / "model.onnx"
    path.write_bytes(placed(written(WHOLE)).SerializeToString())
    check_weights(path)
    path.write_bytes(placed(written(SPOILED)).SerializeToString())
    with pytest.raises(BundleError, match="no numbers"):
        check_weights(path)


def test_the_last_weight_of_a_large_tensor_is_looked_at(tmp_path):
    values = np.zeros(AT_ONCE // 4 + 3, np.float32)
    path = tmp_path / "model.onnx"
    path.write_bytes(as_initializer(numpy_helper.from_array(values, "w")).SerializeToString())
    check_weights(path)
    values[-1] = np.nan
    path.write_bytes(as_initializer(numpy_helper.from_array(values, "w")).SerializeToString())
    with pytest.raises(BundleError, match="no numbers"):
        check_weights(path)


def test_whole_numbers_are_not_taken_for_others(tmp_path):
    """The bytes of -1 as int32 are those of a NaN."""
    path = tmp_path / "model.onnx"
    path.write_bytes(as_initializer(numpy_helper.from_array(np.array([-1], np.int32), "w")).SerializeToString())
    check_weights(path)
    assert np.isnan(np.array([-1], np.int32).view(np.float32)).all()


def test_what_is_no_onnx_is_said(tmp_path):
    path = tmp_path / "model.onnx"
    whole = as_initializer(numpy_helper.from_array(WHOLE.astype(np.float32), "w")).SerializeToString()
    for content in (b"", whole[: len(whole) // 2], b"\x0f" * 40):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"model\.onnx"):
            check_weights(path)


def test_weights_in_another_file_are_refused(tmp_path):
    tensor = numpy_helper.from_array(WHOLE.astype(np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    path = tmp_path / "model.onnx"
    path.write_bytes(as_initializer(tensor).SerializeToString())
    with pytest.raises(BundleError, match="outside"):
        check_weights(path)
