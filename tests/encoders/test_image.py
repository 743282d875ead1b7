"""Pictures by a network that gives their mean colour, and files that are not what they say."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from recops.encoders.content.item_encoder import UnreadableError
from recops.encoders.image import pixels, pooled
from tests.encoders.small_encoders import small_image


def picture(colour: object, kind: str = "PNG", size: tuple[int, int] = (20, 30), mode: str = "RGB", **more) -> bytes:
    out = io.BytesIO()
    Pillow.new(mode, size, colour).save(out, kind, **more)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_is_its_mean_colour_at_length_1(tmp_path: Path, kind: str) -> None:
    (tmp_path / "red").write_bytes(picture((255, 0, 0), kind))
    encoder = small_image(tmp_path / "encoder", source=tmp_path)
    vectors = encoder.encode([{"item_id": "1", "image": "red"}, {"item_id": "2", "image": None}])
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, 0, 0]], atol=0.01)


def test_colours_are_standardised_as_the_settings_say(tmp_path: Path) -> None:
    encoder = small_image(tmp_path, mean=(0.5, 0, 0), std=(0.5, 1, 2))
    vectors, _ = encoder.encode_contents([picture((255, 0, 255))])
    np.testing.assert_allclose(vectors[0], np.array([1, 0, 0.5]) / np.sqrt(1.25), atol=1e-6)


def test_the_middle_is_seen_upright_and_transparency_is_white() -> None:
    wide = Pillow.new("RGB", (60, 20), "black")
    wide.paste("white", (20, 0, 40, 20))
    out = io.BytesIO()
    wide.save(out, "PNG")
    assert pixels(out.getvalue(), 16, 10_000).min() > 200  # the black sides are cut off

    tall = Pillow.new("RGB", (16, 16), "black")
    tall.paste("white", (0, 0, 16, 8))  # white above; turned by the tag, white is on the right
    exif = Pillow.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    tall.save(out, "JPEG", exif=exif)
    turned = pixels(out.getvalue(), 16, 10_000)
    assert turned[:, 12:].mean() > 200 > 50 > turned[:, :4].mean()

    assert (pixels(picture((0, 0, 0, 0), mode="RGBA"), 16, 10_000) == 255).all()
    assert (pixels(picture(0, mode="P", transparency=0), 16, 10_000) == 255).all()


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is huge."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"GIF89a", "not a picture"),
        (picture("red", "TIFF"), "not a picture"),
        (picture("red", "JPEG")[:-200], "broken picture"),
        (picture("red")[:60], "broken picture"),
        (bomb(100, 101), "too many pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "too many pixels"),
        (bomb(90, 90), "broken picture"),
    ],
    ids=["svg", "eps", "gif head", "tiff", "cut jpeg", "cut png", "large", "huge", "no pixels"],
)
def test_files_that_are_not_what_they_say(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=f"^{reason}$"):
        pixels(data, 16, 10_000)
    encoder = small_image(tmp_path, max_pixels=10_000)
    vectors, reasons = encoder.encode_contents([picture("blue"), data, picture("red")])
    np.testing.assert_allclose(vectors, [[0, 0, 1], [0, 0, 0], [1, 0, 0]], atol=0.01)
    assert reasons == [None, reason, None]


def test_features_are_averaged_over_the_picture() -> None:
    features = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    assert pooled(features).tolist() == [[1.5, 5.5]]
    assert pooled(np.ones((1, 4))).shape == (1, 4)
    with pytest.raises(ValueError, match=r"gives \[1, 2, 3\]"):
        pooled(np.ones((1, 2, 3)))
