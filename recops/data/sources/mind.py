"""News logs in the format of MIND (Microsoft News) and NeMig: impressions with clicks, and earlier clicks of the user.

In: the folder `source.path` with `behaviors.tsv` and `news.tsv`. MIND has the time of an impression as a column of its
own, NeMig has none (set source.order to `ordered`). Out: for each article shown an `impression` with its rank and, if
it was clicked, a `click`; for each article of a user's history, which has no time, a `click` before all of these. A row
is such an exploded record: several stand on one line. MIND repeats a user's history on every line; it counts once.
"""

from pathlib import Path
from typing import ClassVar

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.data.sources._text import Dialect, header, text_file
from recops.data.sql import name
from recops.errors import CallError
from recops.params import Group

MIND_NEWS = ["news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]


class Mind:
    class Options(Group):
        behaviors: str = "behaviors.tsv*"
        news: str = "news.tsv*"
        history: bool = True  # false where order is `time`: a history has no times
        timestamp_unit: ClassVar[str] = "iso"

    download = (
        "download MIND from msnews.github.io or NeMig from github.com/andreeaiana/nemig, and put behaviors.tsv and "
        "news.tsv in source.path"
    )

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events and, where there is a news file, items. Raises CallError when a file has other columns."""
        result = {"events": self._events(con)}
        if matching(self.folder, self.options.news):
            result["items"] = self._items(con)
        return result

    def _events(self, con: duckdb.DuckDBPyConnection) -> str:
        file = FileOptions(path=self.options.behaviors, delimiter="\t", quote=None, header=False)
        num_columns = self._num_columns(self.options.behaviors)
        if num_columns not in (0, 4, 5):
            raise CallError(
                f"{self.folder / self.options.behaviors}: expected 4 columns (impression, user, history, shown) or 5 "
                f"(with the time after the user), found {num_columns}"
            )
        columns = [str(i + 1) for i in range(num_columns or 4)]
        history, shown = map(name, columns[-2:])
        time = "try_strptime(\"3\", '%m/%d/%Y %I:%M:%S %p')" if num_columns == 5 else "NULL::TIMESTAMP"

        def record(kind: str, item: str, rank: str) -> str:
            return f"{{'event': '{kind}', 'item_id': {item}, 'rank': {rank}}}"

        item = "regexp_replace(x, '-[01]$', '')"
        impressions = (
            f"flatten(list_transform(string_split(trim({shown}), ' '), lambda x, i: "
            f"CASE WHEN x LIKE '%-1' THEN [{record('impression', item, 'i')}, {record('click', item, 'i')}] "
            f"ELSE [{record('impression', item, 'i')}] END))"
        )
        # A line that is broken or shows nothing must still come out as a row.
        impressions = (
            f"CASE WHEN _reject IS NOT NULL THEN [{record('impression', 'NULL', 'NULL')}] ELSE {impressions} END"
        )
        rows, _ = open_table(con, "mind_impressions", self.folder, file, columns, self.download)
        relation = _exploded(rows, impressions, time, '"1"', 500_000)
        if self.options.history:
            rows, _ = open_table(con, "mind_history", self.folder, file, columns, self.download)
            first = f'row_number() OVER (PARTITION BY "2", {history} ORDER BY _row) = 1'
            rows = f"(FROM {rows} WHERE _reject IS NULL AND trim({history}) <> '' QUALIFY {first})"
            clicks = (
                f"list_transform(string_split(trim({history}), ' '), lambda x: {record('click', 'x', 'NULL::BIGINT')})"
            )
            relation += f" UNION ALL {_exploded(rows, clicks, 'NULL::TIMESTAMP', 'NULL', 0)}"
        return relation

    def _items(self, con: duckdb.DuckDBPyConnection) -> str:
        is_mind = self._num_columns(self.options.news) == len(MIND_NEWS)
        file = FileOptions(path=self.options.news, delimiter="\t", quote=None, header=not is_mind)
        if is_mind:
            columns = dict(zip(MIND_NEWS, map(str, range(1, 9)), strict=True))
            rows, field = open_table(con, "mind_news", self.folder, file, list(columns.values()), self.download)
            at = {column: field(theirs) for column, theirs in columns.items()}
            extra = f"[{at['category']}, {at['subcategory']}] AS categories, NULL AS published_at, "
            attributes = f"json_object('url', {at['url']})"
        else:
            names = ["news_id", "title", "abstract", "url", "datePublished", "publisher", "sentiment", "subtopic"]
            rows, field = open_table(con, "mind_news", self.folder, file, names, self.download)
            at = {column: field(column) for column in names}
            day = at["datePublished"]
            extra = (
                f"CASE WHEN {at['subtopic']} <> '-1' THEN ['subtopic ' || {at['subtopic']}] ELSE [] END AS categories, "
                f"coalesce(try_strptime({day}, '%d.%m.%Y')::VARCHAR, {day}) AS published_at, "
            )
            attributes = ", ".join(f"'{column}', {at[column]}" for column in ("url", "publisher", "sentiment"))
            attributes = f"json_object({attributes})"
        return (
            f"SELECT _file, _line, _raw, _row, _reject, {at['news_id']} AS item_id, {at['title']} AS title, "
            f"{at['abstract']} AS text, {extra} {attributes}::VARCHAR AS attributes FROM {rows}"
        )

    def _num_columns(self, pattern: str) -> int:
        """Fields of the first line of the first file; 0 when there is none."""
        files = matching(self.folder, pattern)
        dialect = Dialect("\t", None, has_header=False)
        return len(header(text_file(files[0]), dialect)) if files else 0


def _exploded(rows: str, records: str, time: str, request_id: str, first_place: int) -> str:
    """SQL of one row for each of `records` (a list of structs); `first_place` orders the lists of one line."""
    return (
        f'SELECT _file, _line, _raw, _row * 1000000 + {first_place} + place AS _row, _reject, "2" AS user_id, '
        f"record.event AS event, record.item_id AS item_id, record.rank AS rank, {time} AS timestamp, "
        f"{request_id} AS request_id FROM (SELECT *, unnest({records}) AS record, "
        f"generate_subscripts({records}, 1) AS place FROM {rows})"
    )
