"""Looks through the weights of an ONNX file without the package onnx, which the service does not load.

In: an ONNX file of a bundle. Out: an error where a weight is no number, which the runtime would compute with without a
word, or lies in another file. Of protocol buffers only the fields are read that lead to tensors (onnx.proto).
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recops.errors import BundleError

# By kind of message, the numbers of fields that hold a message in which tensors may lie, and its kind.
INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
DATA_TYPE, FLOAT_DATA, RAW_DATA, DOUBLE_DATA, LOCATION = 2, 4, 9, 10, 14  # fields of a tensor
TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}  # of those data types that can hold what is no number
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # how a field is written
AT_ONCE = 1 << 24  # bytes


def check_weights(path: Path) -> None:
    """Raises BundleError for a weight that is NaN, for weights outside of the file, and for a file that is no ONNX."""
    if not path.stat().st_size:
        raise BundleError(f"{path}: empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = _wrong(data, 0, len(data), "model")
        except IndexError:
            found = "cut short, or no ONNX file"
    if found is not None:
        raise BundleError(f"{path}: {found}")


def _wrong(data: mmap.mmap, start: int, end: int, kind: str) -> str | None:
    """What is wrong in a message; None: nothing."""
    data_type, written = 0, []
    for number, value, begin, stop in _fields(data, start, end):
        if kind == "tensor":
            if number == DATA_TYPE:
                data_type = value
            elif number in (FLOAT_DATA, RAW_DATA, DOUBLE_DATA):
                written.append((begin, stop))
            elif number == LOCATION and value:
                return "has weights that lie outside of it"
        elif number in INSIDE[kind] and (found := _wrong(data, begin, stop, INSIDE[kind][number])) is not None:
            return found
    if data_type in TYPES and any(_holds_nan(data, *place, TYPES[data_type]) for place in written):
        return "holds weights that are no numbers"
    return None


def _holds_nan(data: mmap.mmap, start: int, end: int, dtype: str) -> bool:
    for begin in range(start, end, AT_ONCE):
        some = data[begin : min(begin + AT_ONCE, end)]
        if np.isnan(np.frombuffer(some, dtype, len(some) // np.dtype(dtype).itemsize)).any():
            return True
    return False


def _fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each field its number, its value where it is a whole number, and where its bytes begin and end."""
    while place < end:
        tag, place = _varint(data, place)
        how, begin, value = tag & 7, place, 0
        if how == VARINT:
            value, place = _varint(data, place)
        elif how == BYTES:
            length, begin = _varint(data, place)
            place = begin + length
        elif how in (FIXED32, FIXED64):
            place += 4 if how == FIXED32 else 8
        else:
            raise IndexError
        if place > end:
            raise IndexError
        yield tag >> 3, value, begin, place


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
