"""Lines of ids: `user item`, one event a line (SASRec), or `user item item …`, one user a line (S3Rec, LightGCN).

In: the files `source.options.file` in the folder `source.path`, or the file `source.path`. Out: events of one kind in
the order they stand, without time (set source.order to `ordered`, or to `unordered` where the order says nothing). A
row is one item of a line; a user without items is a row without item.
"""

from pathlib import Path

import duckdb

from recops.data.sources._tables import matching
from recops.data.sources._text import read_lines, text_file
from recops.data.sql import text
from recops.errors import CallError
from recops.params import Group


class Sequences:
    class Options(Group):
        file: str = "*.txt*"
        event: str = "click"

    download = (
        "download a sequence file, such as data/ml-1m.txt of github.com/kang205/SASRec or data/*.txt of "
        "github.com/RUCAIBox/CIKM2020-S3Rec, and name it by source.path or source.options.file"
    )

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.path = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events. Raises CallError when the pattern names several files: each is a data set of its own."""
        files = [self.path] if self.path.is_file() else matching(self.path, self.options.file)
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise CallError(f"{self.path / self.options.file}: expected one file, found {names}; {self.download}")
        con.register("sequence_lines", read_lines([text_file(files[0])]))
        parts = "regexp_split_to_array(trim(_raw, E' \\t\\r\\n'), '\\s+')"
        return {
            "events": f"""
                SELECT _file, _line, _raw, _row * 1000000 + place AS _row, parts[1] AS user_id, item AS item_id,
                    {text(self.options.event)} AS event
                FROM (SELECT *, unnest(items) AS item, generate_subscripts(items, 1) AS place
                      FROM (SELECT *, CASE WHEN len(parts) = 1 THEN [NULL] ELSE parts[2:] END AS items
                            FROM (SELECT *, {parts} AS parts FROM sequence_lines)))"""
        }
