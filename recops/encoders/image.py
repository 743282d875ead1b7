"""`image`: an item's picture to a vector, by a convolutional network on ONNX Runtime.

Default EfficientNet-Lite0, the variant for small devices of EfficientNet (Tan, Le, 2019), trained on ImageNet: its last
features, averaged over the picture. Pillow decodes; a file that is no picture, is broken or would unfold to more than
`max_pixels` is not encoded, for a reason that is counted.
"""

import io
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps
from pydantic import Field

from recops.encoders.content.files import FileEncoder, FileOptions
from recops.encoders.content.item_encoder import NETWORK, UnreadableError
from recops.protocols import Item
from recops.runtime import OnnxNetwork

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class Image(FileEncoder):
    class Options(FileOptions):
        model: str | None = Field(
            None,
            description="an ONNX file, [1, 3, size, size] to vectors or feature maps; null: EfficientNet-Lite0. "
            "Models of torchvision and timm are exported with torch.onnx.export",
        )
        size: int = Field(224, ge=16, le=1024, description="pixels a side that the network takes")
        mean: tuple[float, float, float] = Field(
            (127 / 255,) * 3, description="of the colours from 0 to 1; torchvision: [0.485, 0.456, 0.406]"
        )
        std: tuple[float, float, float] = Field((128 / 255,) * 3, description="torchvision: [0.229, 0.224, 0.225]")
        max_pixels: int = Field(50_000_000, ge=1, description="larger pictures are not decoded")
        harmless: ClassVar[frozenset[str]] = FileOptions.harmless | {"max_pixels"}

    chunk_size = 32
    options: "Image.Options"

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        super().__init__(folder, threads, source)
        self._network = OnnxNetwork(folder / NETWORK, threads)
        self._mean = np.array(self.options.mean, np.float32)
        self._std = np.array(self.options.std, np.float32)

    def named(self, item: Item) -> str | None:
        return item.get("image")

    def vector(self, data: bytes) -> np.ndarray:
        # One by one: on a CPU quicker than any batch, and kind to files that were exported for one.
        picture = pixels(data, self.options.size, self.options.max_pixels)
        values = (picture.astype(np.float32) / 255 - self._mean) / self._std
        return pooled(self._network(np.ascontiguousarray(values.transpose(2, 0, 1)[None])))[0]


def pixels(data: bytes, size: int, max_pixels: int) -> np.ndarray:
    """uint8 [size, size, 3]: the middle of the picture, upright, transparency on white. Raises UnreadableError."""
    try:
        # What a file may warn of (a broken tag, a palette with transparency) is nothing its reader could act on.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > max_pixels:
                    raise UnreadableError("too many pixels")
                opened.draft("RGB", (size, size))  # a large JPEG is decoded at a fraction of its size
                picture: Pillow.Image = ImageOps.exif_transpose(opened)
                if picture.has_transparency_data:
                    picture = picture.convert("RGBA")
                    white = Pillow.new("RGBA", picture.size, "white")
                    picture = Pillow.alpha_composite(white, picture)
                picture = ImageOps.fit(picture.convert("RGB"), (size, size), Pillow.Resampling.BICUBIC)
                return np.asarray(picture)
    except UnreadableError:
        raise
    except Pillow.UnidentifiedImageError:
        raise UnreadableError("not a picture") from None
    except Pillow.DecompressionBombError:
        raise UnreadableError("too many pixels") from None
    except Exception:  # each of Pillow's decoders has its own way to say that a file is broken
        raise UnreadableError("broken picture") from None


def pooled(output: np.ndarray) -> np.ndarray:
    """[B, D] of what a network gives: as it is, or a map of features [B, D, H, W] averaged over the picture. Raises
    ValueError for any other shape."""
    if output.ndim == 4:
        output = output.mean((2, 3))
    if output.ndim != 2:
        raise ValueError(f"gives {list(output.shape)} where [batch, width] or [batch, width, height, width] is needed")
    return output
