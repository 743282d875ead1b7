"""What every file of the socket does, found by itself."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from recops import plugins
from recops.encoders.attributes import Attributes
from tests.encoders.small_encoders import made, small_image, small_text

NAMES = plugins.names("encoders")
# Each has something for every encoder, the last nothing.
ITEMS: list[dict[str, Any]] = [
    {"item_id": "1", "title": "red", "image": "1.png", "price": 1.0, "attributes": '{"audio": "1.wav"}'},
    {"item_id": "2", "title": "blue", "image": "2.png", "price": 2.0, "attributes": '{"audio": "2.wav"}'},
    {"item_id": "3"},
]


def test_the_socket_has_these() -> None:
    assert NAMES == ["attributes", "audio", "image", "text"]


@pytest.fixture(params=NAMES)
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The small form of each encoder. A new one needs an entry here, or the test says so."""
    name, folder = request.param, tmp_path / "encoder"
    if name == "text":
        return small_text(folder)
    if name == "image":
        for number, colour in ((1, "red"), (2, "blue")):
            Pillow.new("RGB", (9, 9), colour).save(tmp_path / f"{number}.png")
        return small_image(folder, tmp_path)
    if name == "audio":
        for number in (1, 2):
            soundfile.write(tmp_path / f"{number}.wav", np.sin(np.arange(8000) * number / 9), 16_000)
        return made("audio", folder, 192, tmp_path)
    if name == "attributes":
        settings = Attributes.fit(Attributes.Options(), ITEMS)
        return made("attributes", folder, settings["dim"], None, settings)
    raise AssertionError(f"tests/encoders/test_conformance.py makes no {name}")


def test_vectors_are_rows_and_zeros_where_there_is_nothing(encoder: Any) -> None:
    vectors = encoder.encode(ITEMS)
    assert vectors.shape == (3, encoder.dim)
    assert vectors.dtype == np.float32
    assert vectors.any(axis=1).tolist() == [True, True, False]
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_content_alone_decides_and_neighbours_do_not(encoder: Any) -> None:
    contents = [encoder.content(item) for item in ITEMS]
    assert contents[2] is None
    assert contents[0] != contents[1]
    together, reasons = encoder.encode_contents(contents[:2])
    assert reasons == [None, None]
    for row in range(2):
        assert encoder.encode_contents([contents[row]])[0].tobytes() == together[row : row + 1].tobytes()
    np.testing.assert_array_equal(encoder.encode(ITEMS)[:2], together)


def test_options_have_defaults_and_refuse_what_they_do_not_know(encoder: Any) -> None:
    kind = type(encoder)
    assert set(kind.Options.harmless) <= set(kind.Options().model_dump())
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        kind.Options(no_such_option=1)
    assert encoder.version and encoder.sha256 and encoder.chunk_size > 0


@pytest.mark.process
def test_none_loads_what_the_service_must_not() -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "polars", "pandas", "pyarrow", "pydantic_settings")
    code = f"import sys; from recops import plugins; [plugins.load('encoders', n) for n in {NAMES}]; "
    code += f"import recops.encoders.content; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
