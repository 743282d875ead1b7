"""`audio`: a sound to a vector: statistics of its log-mel spectrum, or a pre-trained network (`model`).

The default describes timbre: energy in bands that are as wide as the ear hears them (Stevens, Volkmann, Newman, 1937;
used by Davis, Mermelstein, 1980), in decibels below the sound's own loudest moment, as mean and deviation over time and
mean step from one moment to the next. How loud the recording is does not matter. libsndfile decodes (WAV, FLAC, Ogg).

The table of items has no column of its own: the path or address stands in `attributes` under the key `audio`.
"""

import io
from math import gcd
from pathlib import Path

import numpy as np
from pydantic import Field

from recops.encoders.content.files import FileEncoder, FileOptions
from recops.encoders.content.item_encoder import NETWORK, UnreadableError, attributes_of
from recops.protocols import Item
from recops.runtime import OnnxNetwork

WINDOW_S, HOP_S = 0.025, 0.010
DYNAMIC_RANGE_DB = 80.0  # what is fainter counts as that faint
MAX_RATE = 400_000  # samples a second; no real recording has more
MAX_CHANNELS = 32


class Audio(FileEncoder):
    class Options(FileOptions):
        model: str | None = Field(
            None, description="an ONNX file, sound [1, samples] to [1, width] or [1, time, width]; null: statistics"
        )
        sample_rate: int = Field(16_000, ge=4_000, le=96_000, description="samples a second; others are resampled")
        max_seconds: float = Field(60.0, gt=0, description="only so much from the start is listened to")
        num_bands: int = Field(64, ge=8, le=256)

    chunk_size = 16
    options: "Audio.Options"

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        super().__init__(folder, threads, source)
        self._network = OnnxNetwork(folder / NETWORK, threads) if self.options.model is not None else None

    def named(self, item: Item) -> str | None:
        found = attributes_of(item).get("audio")
        return found if isinstance(found, str) else None

    def vector(self, data: bytes) -> np.ndarray:
        sound_T = samples(data, self.options.sample_rate, self.options.max_seconds)
        if self._network is not None:
            return averaged(self._network(sound_T[None]))[0]
        return statistics(sound_T, self.options.sample_rate, self.options.num_bands)


def samples(data: bytes, sample_rate: int, max_seconds: float) -> np.ndarray:
    """float32 [T]: the mean of the channels, at most `max_seconds`, at `sample_rate`. Raises UnreadableError."""
    import soundfile
    from scipy.signal import resample_poly

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            if not 0 < rate <= MAX_RATE or file.channels > MAX_CHANNELS:
                raise UnreadableError("broken sound")
            sound_T = file.read(round(max_seconds * rate), dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, RuntimeError, ValueError):
        raise UnreadableError("not a sound") from None
    if not np.isfinite(sound_T).all():
        raise UnreadableError("broken sound")
    if rate != sample_rate and len(sound_T):
        common = gcd(rate, sample_rate)
        sound_T = resample_poly(sound_T, sample_rate // common, rate // common).astype(np.float32)
    if len(sound_T) < round(WINDOW_S * sample_rate):
        raise UnreadableError("too short")
    if not sound_T.any():
        raise UnreadableError("silent")
    return sound_T


def statistics_dim(options: Audio.Options) -> int:
    """Width of `statistics`."""
    return 3 * options.num_bands


def statistics(sound_T: np.ndarray, sample_rate: int, num_bands: int) -> np.ndarray:
    """float64 [3 x bands], decibels: of each band the mean less the mean of all, the deviation, and the mean absolute
    step from one moment to the next. A steady sound has nothing but the first."""
    levels_TB = log_mel(sound_T, sample_rate, num_bands)
    steps_TB = np.abs(np.diff(levels_TB, axis=0)) if len(levels_TB) > 1 else np.zeros_like(levels_TB)
    means_B = levels_TB.mean(axis=0)
    return np.concatenate([means_B - means_B.mean(), levels_TB.std(axis=0), steps_TB.mean(axis=0)])


def log_mel(sound_T: np.ndarray, sample_rate: int, num_bands: int) -> np.ndarray:
    """float64 [moments, bands]: decibels relative to the loudest moment of the loudest band, not below -80."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    window = round(WINDOW_S * sample_rate)
    padded = 2 ** (window - 1).bit_length()
    transform = ShortTimeFFT(hann(window, sym=False), round(HOP_S * sample_rate), sample_rate, mfft=padded)
    # Only windows that lie whole in the sound: what sticks out would be silence that nobody recorded.
    first, last = transform.lower_border_end[1], transform.upper_border_begin(len(sound_T))[1]
    power_FT = transform.spectrogram(sound_T.astype(np.float64))
    begin, end = first - transform.p_min, max(last - transform.p_min, first - transform.p_min + 1)
    energy_BT = mel_bands(transform.f, num_bands) @ power_FT[:, begin:end]
    loudest = max(energy_BT.max(), np.finfo(np.float64).tiny)
    return np.maximum(10 * np.log10(np.maximum(energy_BT / loudest, 1e-30)), -DYNAMIC_RANGE_DB).T


def mel_bands(frequencies_F: np.ndarray, num_bands: int) -> np.ndarray:
    """float64 [bands, F]: triangles that overlap by half, evenly spaced in mel up to the highest frequency."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(0, mel(frequencies_F[-1:])[0], num_bands + 2)
    places_F = mel(frequencies_F)
    rising = (places_F - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - places_F) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def averaged(output: np.ndarray) -> np.ndarray:
    """[B, D] of what a network gives: as it is, or [B, T, D] averaged over time. Raises ValueError for other shapes."""
    if output.ndim == 3:
        output = output.mean(1)
    if output.ndim != 2:
        raise ValueError(f"gives {list(output.shape)} where [1, width] or [1, time, width] is needed")
    return output
