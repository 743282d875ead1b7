"""Sounds that are written here: what must and must not change their vector, and files that are no sound."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from recops.encoders.audio import averaged, log_mel, mel_bands, samples, statistics
from recops.encoders.content.item_encoder import UnreadableError
from tests.encoders.small_encoders import made, sound_network

RATE = 16_000


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE, loudness: float = 0.5) -> np.ndarray:
    return loudness * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def written(sound: np.ndarray, rate: int = RATE, kind: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, sound, rate, format=kind)
    return out.getvalue()


@pytest.fixture
def encoder(tmp_path: Path) -> Any:
    (tmp_path / "low.wav").write_bytes(written(tone(220)))
    return made("audio", tmp_path / "encoder", 3 * 64, tmp_path)


def likeness(encoder: Any, *sounds: bytes) -> np.ndarray:
    vectors, reasons = encoder.encode_contents(list(sounds))
    assert reasons == [None] * len(sounds)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    return vectors @ vectors.T


def test_near_tones_are_alike_and_far_ones_are_not(encoder: Any) -> None:
    near, far = likeness(encoder, written(tone(440)), written(tone(450)), written(tone(3000)))[0, 1:]
    assert near > 0.9 > 0.6 > far


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_neither_loudness_nor_rate_nor_channels_matter(encoder: Any, kind: str) -> None:
    one = tone(440, loudness=0.8)
    other = np.stack([tone(440, rate=44_100, loudness=0.2)] * 2, axis=1)
    alike, far = likeness(encoder, written(one), written(other, 44_100, kind), written(tone(2000)))[0, 1:]
    assert alike > 0.9 > far + 0.2


def test_items_name_their_sound_in_attributes(encoder: Any) -> None:
    named = {"item_id": "1", "attributes": '{"audio": "low.wav", "artist": "A"}'}
    vectors = encoder.encode([named, {"item_id": "2", "attributes": '{"audio": null}'}, {"item_id": "3"}])
    assert vectors.any(axis=1).tolist() == [True, False, False]
    with pytest.raises(UnreadableError, match="outside of the source's folder"):
        encoder.content({"item_id": "1", "attributes": '{"audio": "../low.wav"}'})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"RIFF1234WAVEfmt ", "not a sound"),
        (b"ID3" + bytes(100), "not a sound"),
        (written(np.zeros(RATE)), "silent"),
        (written(tone(440, 0.01)), "too short"),
        (written(np.zeros(0)), "too short"),
    ],
    ids=["cut", "nothing", "silent", "short", "empty"],
)
def test_files_that_are_no_sound(encoder: Any, data: bytes, reason: str) -> None:
    vectors, reasons = encoder.encode_contents([data, written(tone(440))])
    assert reasons == [reason, None]
    assert vectors.any(axis=1).tolist() == [False, True]


def test_only_the_beginning_is_listened_to() -> None:
    sound = np.concatenate([tone(440, 1.0), tone(880, 3.0)])
    np.testing.assert_array_equal(samples(written(sound), RATE, 1.0), samples(written(sound[:RATE]), RATE, 60.0))


def test_bands_are_triangles_that_overlap_by_half() -> None:
    """Two bands over 0 to 2595 log10(1 + 700/700) = 781.2 mel: edges at 0, 260.4, 520.8 and 781.2 mel, which are 0,
    181.9, 411.1 and 700 Hz; each is 1 at its middle edge and 0 at the outer ones."""
    edges = 700 * (2 ** (np.arange(4) / 3) - 1)
    np.testing.assert_allclose(mel_bands(edges, 2), [[0, 1, 0, 0], [0, 0, 1, 0]], atol=1e-9)
    middle = 700 * (2 ** (0.5) - 1)  # half way between the second and the third edge, in mel
    np.testing.assert_allclose(mel_bands(np.array([middle, 700.0]), 2)[:, 0], [0.5, 0.5], atol=1e-9)


def test_levels_are_decibels_below_the_loudest() -> None:
    """A tone of a tenth of the strength is 20 dB fainter; where nothing sounds it is 80 dB below."""
    sound = np.concatenate([tone(1000, 0.5), tone(1000, 0.5, loudness=0.05), np.zeros(RATE // 2)]).astype(np.float32)
    levels = log_mel(sound, RATE, 40)
    assert levels.shape == (147, 40)  # windows of 25 ms around 0.02, 0.03, … 1.48 s; others stick out
    loudest = levels[20].argmax()
    np.testing.assert_allclose(levels[[20, 75, 140], loudest], [0, -20, -80], atol=0.1)


def test_a_steady_tone_has_no_steps_and_one_that_pulses_has() -> None:
    """Half a second at full strength, half at a tenth: the tone's band is 10 dB above and below its mean."""
    steady = tone(1000, 1.0)
    band = mel_bands(np.array([1000.0, RATE / 2]), 16)[:, 0].argmax()
    means, deviations, steps = statistics(steady.astype(np.float32), RATE, 16).reshape(3, 16)
    assert means.argmax() == band
    assert deviations[band] == pytest.approx(0, abs=0.1) == steps[band]
    pulsing = steady * np.where(np.arange(RATE) < RATE // 2, 1, 0.1)
    _, deviations, steps = statistics(pulsing.astype(np.float32), RATE, 16).reshape(3, 16)
    assert deviations[band] == pytest.approx(10, abs=0.3)
    assert steps[band] == pytest.approx(20 / 96, abs=0.1)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """Mean 0.25 and mean square 0.0625 + 0.0625 of a sound that is 0 or 0.5 by turns."""
    (tmp_path / "encoder").mkdir()
    sound_network(tmp_path / "encoder" / "model.onnx")
    encoder = made("audio", tmp_path / "encoder", 2, model="mine.onnx")
    vectors, _ = encoder.encode_contents([written(np.tile([0, 0.5], 4000), kind="FLAC")])
    np.testing.assert_allclose(vectors[0], np.array([0.25, 0.125]) / np.hypot(0.25, 0.125), atol=1e-4)
    with pytest.raises(ValueError, match=r"gives \[2\]"):
        averaged(np.zeros(2))
