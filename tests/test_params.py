"""params.yaml: defaults where a key is left out, and errors that name file and key."""

from pathlib import Path

import pytest

from recops.errors import CallError
from recops.params import Params, read_params


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "train:\n  model: rerank\n"])
def test_what_is_left_out_has_its_default(tmp_path: Path, text: str) -> None:
    assert read_params(write(tmp_path, text)) == Params()


def test_what_is_left_out_follows_the_task(tmp_path: Path) -> None:
    params = read_params(write(tmp_path, "train: {task: rating}\n"))
    assert (params.train.model, params.train.baselines) == ("bayesian_factorization", ["rating_means"])
    assert params.evaluate.metric == "rmse"


def test_a_metric_that_does_not_fit_the_task_is_named_and_no_more(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {task: rating}\nevaluate: {metric: ndcg@10}\n")
    with pytest.raises(CallError) as caught:
        read_params(path)
    assert str(caught.value).startswith(f"{path}: evaluate.metric: train.task is rating")
    assert str(caught.value).endswith("found 'ndcg@10'")


def test_a_value_is_read(tmp_path: Path) -> None:
    params = read_params(write(tmp_path, "train: {model: ease, threads: 4}\nvalidate: {enabled: false}\n"))
    assert (params.train.model, params.train.threads, params.validate_.enabled) == ("ease", 4, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {modle: ease}\n", r"train\.modle: Extra inputs are not permitted \(found 'ease'\)"),
        ("trian: {model: ease}\n", r"trian: Extra inputs"),
        ("serve: {port: 70000}\n", r"serve\.port: .*65535 \(found 70000\)"),
        ("split: {valid_fraction: .nan}\n", r"split\.valid_fraction: .*finite"),
        (
            "split: {valid_fraction: 0.6, test_fraction: 0.4}\n",
            r"0\.6 and test_fraction 0\.4 leave nothing to train on",
        ),
        ("ingest: {events: {view: {weight: 1}}}\n", r"ingest\.events\.view\.signal: Field required$"),
        ("train: [a\n", "not readable as YAML"),
        ("- a\n", "expected groups of settings, found list"),
    ],
)
def test_a_mistake_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(CallError, match=message) as raised:
        read_params(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"train\.threads.*gate\.margin"):
        read_params(write(tmp_path, "train: {threads: 0}\ngate: {margin: -1}\n"))


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"train: {model: \xff\xfe}\n")
    with pytest.raises(CallError, match="not readable as YAML"):
        read_params(path)


@pytest.mark.parametrize(
    "text",
    [
        "evaluate: {k: []}",
        "evaluate: {k: [0]}",
        "evaluate: {max_users: 0}",
        "evaluate: {seed: -1}",
        "train: {seed: -1}",
        "train: {seed: 18446744073709551616}",
        "split: {seed: -1}",
        "export: {parity_users: -1}",
        "gate: {min_users: 0}",
        "serve: {max_body_bytes: 0}",
        "serve: {grace_s: -1}",
        "serve: {grace_s: 25}",
        "ingest: {events: {}}",
        "ingest: {now: yesterday}",
        "export: {opset: 3}",
    ],
)
def test_a_number_that_means_nothing_is_refused(tmp_path: Path, text: str) -> None:
    key = text.replace("{", "").split(": ")[1]
    with pytest.raises(CallError, match=rf"params\.yaml: \w+\.{key}"):
        read_params(write(tmp_path, text))


def test_a_certificate_and_its_key_belong_together(tmp_path: Path) -> None:
    for text in ("serve: {tls_cert: a.pem}", "serve: {tls_key: a.pem}"):
        with pytest.raises(CallError, match=r"serve: .*tls_cert and tls_key belong together"):
            read_params(write(tmp_path, text))
    assert read_params(write(tmp_path, "serve: {tls_cert: a.pem, tls_key: b.pem}")).serve.tls_key == "b.pem"


def test_what_else_stands_in_a_group_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"belong together$") as caught:
        read_params(write(tmp_path, "serve: {tls_cert: a.pem, store: 'postgresql://shop:secret@db/recops'}\n"))
    assert "secret" not in str(caught.value)
