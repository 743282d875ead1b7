"""How results and errors look on a terminal, and the same without colour elsewhere. Knows no command."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console()


def escaped(text: str) -> str:
    """Text that rich shows as it is, brackets included."""
    return text.replace("[", r"\[")


def print_table(title: str, columns: list[str], rows: Iterable[Sequence[Any]]) -> None:
    """One table, a line each row."""
    table = Table(*columns, title=escaped(title), title_justify="left")
    for row in rows:
        table.add_row(*(escaped(str(cell)) for cell in row))
    console.print(table)


def print_error(text: str) -> None:
    """One line on stderr."""
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escaped(text)}", highlight=False)
