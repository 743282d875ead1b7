"""The command line: its frozen surface, its help, its exit codes and its one-line errors."""

import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from recops import cli
from recops.stages.project import Project, open_project


def commands(group: object, before: str = "") -> dict[str, object]:
    """Every command by the words that call it."""
    found: dict[str, object] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found |= commands(command, f"{before}{name} ") if hasattr(command, "commands") else {before + name: command}
    return found


COMMANDS = commands(get_command(cli.app))
# The public surface: a change here is a [Breaking] line of the changelog, an addition an ordinary one.
SURFACE = {
    "init": "DIR --events --example --items --users --task",
    "run": "-C",
    "ingest": "-C",
    "validate": "-C",
    "split": "-C",
    "encode": "-C",
    "train": "-C",
    "evaluate": "-C",
    "export": "-C",
    "package": "-C",
    "tune": "--budget --model --trials --write -C",
    "serve": "-C --host --port --workers",
    "recommend": "--explain --history --request-id --user -C -k",
    "score-all": "--out --workers -C -k",
    "explain": "--exclude --filters --history --item --json --request-id --user -C -k",
    "add-items": "FILE -C",
    "ask": "QUESTION --history --json --user -C -k",
    "releases": "-C",
    "promote": "RELEASE --force --why -C",
    "rollback": "--force --why -C",
    "trace": "ID --json --kind -C",
    "audit": "--json --last -C",
    "impact": "DATA_VERSION --json -C",
    "backup": "FILE -C",
    "reproduce": "RELEASE -C",
    "restore": "FILE --force -C",
    "quarantine": "DATA_VERSION --lift --no-train --why -C",
    "erase": "--collect --user --verify -C",
    "deploy-files": "OUT_DIR --image --replicas -C",
    "drift": "--json --since --until -C",
    "replay": "--data --days --fault --json --model --out --policy --seed --source --users -C",
    "off-policy": "--candidate --days --json -C",
    "keys add": "NAME --file --rate --role --tenant -C",
    "keys list": "--file -C",
    "keys revoke": "NAME --file -C",
    "keys sign-key": "FILE",
    "traffic shadow": "RELEASE --name --share -C",
    "traffic canary": "RELEASE --guardrail --name --share -C",
    "traffic ab": "RELEASE --name --share -C",
    "traffic off": "NAME -C",
    "traffic report": "--json -C",
    "up": "--foreground --port --print -C",
    "down": "-C",
    "status": "--json -C",
    "doctor": "-C",
}


def surface(command: object) -> set[str]:
    """Arguments by the name shown, and options."""
    params = [p for p in command.params if p.name != "help"]  # type: ignore[attr-defined]
    return {(p.metavar or p.name.upper()) if p.param_type_name == "argument" else p.opts[0] for p in params}


def recops(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of one call."""
    monkeypatch.setattr(sys, "argv", ["recops", *words])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda *words: recops(monkeypatch, capsys, *map(str, words))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with settings and nothing else."""
    (tmp_path / "params.yaml").write_text("train: {model: item_knn}\n")
    return tmp_path


def test_commands_and_options_are_frozen() -> None:
    found = {name: surface(command) for name, command in COMMANDS.items()}
    assert found == {name: set(words.split()) for name, words in SURFACE.items()}


@pytest.mark.parametrize("name", SURFACE)
def test_help_has_an_example(call, name: str) -> None:
    code, out, _ = call(*name.split(), "--help")
    assert code == 0
    assert f"Example: recops {name}" in out
    assert COMMANDS[name].help  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [
        ("fly",),
        ("run", "--fly"),
        ("init", "x"),
        ("recommend", "-k", "0"),
        ("explain", "--user", "a"),
        ("serve", "--port", "0"),
        ("promote",),
    ],
)
def test_a_wrong_call_is_exit_2(call, words: tuple[str, ...]) -> None:
    code, _, err = call(*words)
    assert code == 2
    assert "Traceback" not in err


def test_the_version_is_told(call) -> None:
    code, out, _ = call("--version")
    assert (code, bool(re.fullmatch(r"\d+\.\d+\.\d+\n", out))) == (0, True)


@pytest.mark.parametrize(
    "words",
    [("run",), ("train",), ("serve",), ("recommend", "--user", "a"), ("releases",), ("rollback",), ("trace", "x")],
)
def test_a_folder_that_is_no_project_is_told_in_one_line(call, tmp_path: Path, words: tuple[str, ...]) -> None:
    code, out, err = call(*words, "-C", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path / 'params.yaml'}: no such file; `recops init DIR --events F` makes a project\n"


@pytest.mark.parametrize("words", [("run",), ("ingest",), ("train",), ("serve",)])
def test_a_misspelt_key_is_told_with_file_and_key(call, folder: Path, words: tuple[str, ...]) -> None:
    (folder / "params.yaml").write_text("train: {modle: item_knn}\n")
    code, _, err = call(*words, "-C", folder)
    assert code == 2
    assert err.startswith(f"error: {folder / 'params.yaml'}: train.modle: ")
    assert err.count("\n") == 1


def test_brackets_of_a_message_are_shown(call, folder: Path) -> None:
    (folder / "params.yaml").write_text("train: {baselines: [[bold], 1]}\n")
    _, _, err = call("run", "-C", folder)
    assert "['bold']" in err


def test_an_unknown_source_is_told_with_those_there_are(call, folder: Path) -> None:
    (folder / "params.yaml").write_text("source: {name: moon}\n")
    code, _, err = call("ingest", "-C", folder)
    assert code == 2
    assert "no data.sources named 'moon': there are" in err


@pytest.mark.parametrize(
    "words",
    [
        ("recommend", "--user", "a"),
        ("explain", "--user", "a", "--item", "b"),
        ("serve",),
        ("deploy-files", "out"),
        ("drift", "--since", "2020-01-01"),
        ("off-policy",),
    ],
)
def test_what_needs_a_release_says_so_before_the_first(call, folder: Path, words: tuple[str, ...]) -> None:
    code, _, err = call(*words, "-C", folder)
    assert code in (1, 2)
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("recommend",), ("explain", "--item", "a")])
def test_whoever_is_asked_about_needs_a_user_or_a_history(call, folder: Path, words: tuple[str, ...]) -> None:
    code, _, err = call(*words, "-C", folder)
    assert (code, err) == (2, "error: --user or --history: give one of them\n")


@pytest.mark.parametrize(
    "words", [("recommend", "--user", "a"), ("explain", "--user", "a", "--item", "b"), ("ask", "what?"), ("run",)]
)
def test_rules_that_are_wrong_are_told_in_one_line(call, folder: Path, words: tuple[str, ...]) -> None:
    (folder / "params.yaml").write_text("serve: {rules: rules.yaml}\n")
    (folder / "rules.yaml").write_text("boost: [{items: [a], factor: 0.5}]\n")
    code, _, err = call(*words, "-C", folder)
    assert code == 2
    assert err.startswith(f"error: {folder / 'rules.yaml'}: boost[0].factor: ")
    assert err.count("\n") == 1


def test_rules_are_those_of_params_else_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = open_project(folder)
    (folder / "params.yaml").write_text("")
    assert project.rules_file is None
    monkeypatch.setenv("RECOPS_RULES", "/elsewhere/rules.json")
    assert project.rules_file == Path("/elsewhere/rules.json")
    (folder / "params.yaml").write_text("serve: {rules: rules.yaml}\n")
    assert project.rules_file == project.root / "rules.yaml"


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_init_names_a_file_it_cannot_read(call, tmp_path: Path, name: str) -> None:
    code, _, err = call("init", tmp_path / "shop", "--events", tmp_path / name)
    assert code == 2
    assert str(tmp_path / name) in err
    assert not (tmp_path / "shop").exists()


def test_init_does_not_overwrite_a_project(call, folder: Path) -> None:
    (folder / "log.csv").write_text("user,item\na,b\n")
    code, _, err = call("init", folder, "--events", folder / "log.csv")
    assert code == 2
    assert "params.yaml: exists already" in err


def test_init_into_a_file_is_told(call, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\na,b\n")
    code, _, err = call("init", tmp_path / "log.csv", "--events", tmp_path / "log.csv")
    assert (code, err) == (2, f"error: {tmp_path / 'log.csv'}: is a file; name a folder\n")


def test_refused_data_is_exit_1_with_a_table_of_the_rules(call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recops.data.validation import RuleResult, Verdict
    from recops.stages import validate

    def verdict(*_: object, **__: object) -> Verdict:
        rule = RuleResult("events", "null_users", "user_id", "stop", 3, "at most 0", "no user", examples=[{"row": 7}])
        found = Verdict(stopped=[rule])
        (folder / "reports").mkdir()
        (folder / "reports" / "validation.json").write_text(json.dumps(found.to_json()))
        return found

    monkeypatch.setattr(validate, "validate_tables", verdict)
    code, out, err = call("validate", "-C", folder)
    assert code == 1
    assert err.startswith("error: 1 rule(s) stopped the thread")
    assert "null_users" in out
    assert '{"row": 7}' in out
    assert Project(folder).refused.exists()


def test_a_fault_of_our_own_keeps_its_traceback(call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recops.stages import encode

    monkeypatch.setattr(encode, "load", lambda *_: 1 / 0)
    (folder / "params.yaml").write_text("encode: {encoders: [text]}\n")
    with pytest.raises(ZeroDivisionError):
        call("encode", "-C", folder)


def test_the_help_lists_every_command(call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert all(name.split()[0] in out for name in SURFACE)


@pytest.mark.parametrize(("option", "said"), [(("--task", "rating"), "--task"), (("--items", "items.csv"), "--items")])
def test_an_example_says_itself_what_it_is_made_of(call, tmp_path: Path, option: tuple[str, str], said: str) -> None:
    code, _, error = call("init", tmp_path / "new", "--example", "news", "--events", tmp_path, *option)
    assert code == 2
    assert error.startswith(f"error: {said}") and not (tmp_path / "new").exists()


def test_keys_are_made_listed_and_revoked(call, folder: Path) -> None:
    code, out, _ = call("keys", "add", "shop", "--role", "read", "--rate", "5", "-C", folder)
    assert code == 0 and re.fullmatch(r"rk_\S{43}\n", out)
    assert out.strip() not in (folder / ".recops" / "keys.json").read_text()
    assert call("keys", "add", "shop", "--role", "admin", "-C", folder)[0] == 2
    code, _, error = call("keys", "add", "other", "--role", "root", "-C", folder)
    assert (code, "--role: expected read, write, admin" in error) == (2, True)
    code, listed, _ = call("keys", "list", "-C", folder)
    assert code == 0 and "shop" in listed and "read" in listed and out.strip() not in listed
    assert call("keys", "revoke", "shop", "-C", folder)[:2] == (0, "Revoked shop\n")
    assert call("keys", "revoke", "shop", "-C", folder)[0] == 2
    # Anywhere else, without a project.
    file = folder / "elsewhere.json"
    assert call("keys", "add", "shop", "--role", "write", "--file", file)[0] == 0
    assert "write" in call("keys", "list", "--file", file)[1]


def test_a_pair_to_sign_with_is_made_once(call, tmp_path: Path) -> None:
    code, out, _ = call("keys", "sign-key", tmp_path / "key.pem")
    assert code == 0 and "RECOPS_SIGN_KEY" in out and "RECOPS_VERIFY_KEY" in out
    assert "PRIVATE" not in out
    assert call("keys", "sign-key", tmp_path / "key.pem")[0] == 2


def test_a_store_that_others_hold_is_told_in_one_line(monkeypatch, capsys):
    def locked() -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(cli, "app", locked)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1 and "the store is busy" in capsys.readouterr().err
