"""`recops add-items`: what a file says of items is told to the store; what it does not say stays."""

from pathlib import Path

import pytest

from recops.errors import CallError
from recops.stages.add_items import read_items
from recops.stages.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").write_text("source: {name: movielens_small}\n")
    return Project(tmp_path)


def test_columns_are_guessed_and_those_that_are_missing_are_not_told(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("itemId,title,genres,price,released,size\nn1,New,x|y,2.5,2020-01-02,big\nn2,,x|z,,,\n")
    items, rejected, _ = read_items(project, file)
    assert rejected == []
    assert items[0]["item_id"] == "n1" and items[0]["categories"] == ["x", "y"] and items[0]["price"] == 2.5
    assert items[1]["title"] is None and items[1]["price"] is None
    assert items[0]["attributes"]["size"] == "big"
    assert "text" not in items[0] and "image" not in items[0] and "available" not in items[0]


def test_json_lines_and_the_projects_own_names(tmp_path: Path) -> None:
    options = "{path: shop.csv, columns: {item_id: sku, title: naam}}"
    log = "{path: log.csv, event: view, columns: {user_id: u, item_id: sku}}"
    (tmp_path / "params.yaml").write_text(f"source: {{name: files, options: {{events: {log}, items: {options}}}}}\n")
    file = tmp_path / "new.csv"
    file.write_text("sku,naam\n7,Fiets\n")
    assert read_items(Project(tmp_path), file) == ([{"item_id": "7", "title": "Fiets"}], [], {})
    other = tmp_path / "new.jsonl"
    other.write_text('{"item_id": "8", "title": "Bel", "price": 3}\n')
    items, _, _ = read_items(Project(tmp_path), other)
    assert items == [{"item_id": "8", "title": "Bel", "price": 3.0}]


def test_the_projects_own_names_count_where_nothing_could_be_guessed_and_some_are_missing(tmp_path: Path) -> None:
    """`mystery` means nothing to anybody else; of `prijs` the comma is known, `naam` and `extra` are not told."""
    columns = "{item_id: mystery, title: naam, price: prijs}"
    options = f"{{path: shop.csv, columns: {columns}, decimal: ',', attributes: [extra]}}"
    log = "{path: log.csv, event: view, columns: {user_id: u, item_id: mystery}}"
    (tmp_path / "params.yaml").write_text(f"source: {{name: files, options: {{events: {log}, items: {options}}}}}\n")
    file = tmp_path / "new.csv"
    file.write_text("mystery;prijs;unasked\n7;2,50;x\n")
    assert read_items(Project(tmp_path), file) == ([{"item_id": "7", "price": 2.5}], [], {})
    lines = tmp_path / "new.jsonl"
    lines.write_text('{"mystery": "8", "naam": "Bel"}\n')
    assert read_items(Project(tmp_path), lines) == ([{"item_id": "8", "title": "Bel"}], [], {})


def test_a_file_without_rows_adds_nothing(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("item_id,title\n")
    assert read_items(project, file) == ([], [], {})


def test_a_row_without_an_id_or_twice_is_named_with_its_line(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("item_id,title\na,A\n,nameless\na,again\nb,B\n")
    items, rejected, _ = read_items(project, file)
    assert [item["title"] for item in items] == ["A", "B"]
    assert [(line, reason.partition(":")[0]) for line, reason in rejected] == [
        (3, "missing item_id"),
        (4, "duplicate item_id"),
    ]


def test_a_missing_file_and_one_without_ids_are_named(project: Project, tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"none\.csv: no such file"):
        read_items(project, tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_text("colour,height\nred,3\n")
    with pytest.raises(CallError, match=r"odd\.csv: which column is item_id"):
        read_items(project, tmp_path / "odd.csv")


def test_values_that_cannot_be_read_are_counted(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("item_id,price,available\na,cheap,maybe\nb,2.5,true\nc,,\n")
    items, rejected, unreadable = read_items(project, file)
    assert [item["price"] for item in items] == [None, 2.5, None] and rejected == []
    assert unreadable == {"price": 1, "available": 1}
