"""MovieLens by GroupLens: 100k, 1m and the latest sets, told apart by the files in the folder.

In: the folder `source.path` with `u.data` (100k), `ratings.dat` (1m) or `ratings.csv` (latest and 20m on; also
gzipped). Out: rating events, movies with title and genres, users with what is known of them. Research and
non-commercial use only.
"""

from pathlib import Path
from typing import ClassVar

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.data.sources._text import read_lines, text_file
from recops.data.sql import text
from recops.errors import CallError
from recops.params import Group

GENRES_100K = [
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
# In the order of their numbers in users.dat, which say nothing as numbers.
OCCUPATIONS_1M = [
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service"),
    *("doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer"),
    *("retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman"),
    *("unemployed", "writer"),
]
ROW = "_file, _line, _raw, _row, _reject"
NO_GENRE = "(no genres listed)"


class Movielens:
    class Options(Group):
        min_rating: float | None = None  # lower ratings are rejected
        timestamp_unit: ClassVar[str] = "s"

    download = (
        "download ml-100k.zip, ml-1m.zip or ml-latest-small.zip from grouplens.org/datasets/movielens and unpack it in "
        "source.path"
    )

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events, items and users as far as their files are there. Raises CallError when no layout is recognised."""
        layouts = {"u.data": self._rated_100k, "ratings.dat": self._rated_1m, "ratings.csv*": self._rated_csv}
        found = next((rated for pattern, rated in layouts.items() if matching(self.folder, pattern)), None)
        if found is None:
            raise CallError(f"{self.folder}: none of {', '.join(layouts)}; {self.download}")
        reject = "_reject"
        if self.options.min_rating is not None:
            low = f"TRY_CAST(rating AS FLOAT) < {self.options.min_rating}"
            reject = f"CASE WHEN _reject IS NOT NULL THEN _reject WHEN {low} THEN 'below min_rating' END"
        result = {
            "events": f"SELECT _file, _line, _raw, _row, {reject} AS _reject, user_id, item_id, timestamp, "
            f"'rating' AS event, rating AS value FROM ({found(con)})"
        }
        entities = {
            "items": {"u.item": self._movies_100k, "movies.dat": self._movies_1m, "movies.csv*": self._movies_csv},
            "users": {"u.user": self._users_100k, "users.dat": self._users_1m},
        }
        for table, readers in entities.items():
            for pattern, reader in readers.items():
                if matching(self.folder, pattern):
                    result[table] = reader(con)
                    break
        return result

    def _rated_100k(self, con: duckdb.DuckDBPyConnection) -> str:
        file = FileOptions(path="u.data", delimiter="\t", header=False)
        rows = self._open(con, "ratings", file, 4)
        return f'SELECT {ROW}, "1" AS user_id, "2" AS item_id, "3" AS rating, "4" AS timestamp FROM {rows}'

    def _rated_1m(self, con: duckdb.DuckDBPyConnection) -> str:
        rows = self._double_colons(con, "ratings.dat", 4)
        return f"SELECT {ROW}, f[1] AS user_id, f[2] AS item_id, f[3] AS rating, f[4] AS timestamp FROM {rows}"

    def _rated_csv(self, con: duckdb.DuckDBPyConnection) -> str:
        columns = ["userId", "movieId", "rating", "timestamp"]
        file = FileOptions(path="ratings.csv*")
        rows, _ = open_table(con, "movielens_ratings", self.folder, file, columns, self.download)
        return f"SELECT {ROW}, userId AS user_id, movieId AS item_id, rating, timestamp FROM {rows}"

    def _movies_100k(self, con: duckdb.DuckDBPyConnection) -> str:
        file = FileOptions(path="u.item", delimiter="|", quote=None, header=False, encoding="latin-1")
        rows = self._open(con, "movies", file, 5 + len(GENRES_100K))
        genres = ", ".join(f"CASE WHEN \"{i}\" = '1' THEN {text(genre)} END" for i, genre in enumerate(GENRES_100K, 6))
        # The day a film came out, not the day it joined the catalogue: an attribute, since ratings may come before.
        return (
            f'SELECT {ROW}, "1" AS item_id, "2" AS title, '
            f"list_filter([{genres}], lambda x: x IS NOT NULL) AS categories, "
            f"json_object('released', \"3\", 'url', \"5\")::VARCHAR AS attributes FROM {rows}"
        )

    def _movies_1m(self, con: duckdb.DuckDBPyConnection) -> str:
        rows = self._double_colons(con, "movies.dat", 3)
        return f"SELECT {ROW}, f[1] AS item_id, f[2] AS title, string_split(f[3], '|') AS categories FROM {rows}"

    def _movies_csv(self, con: duckdb.DuckDBPyConnection) -> str:
        file = FileOptions(path="movies.csv*")
        rows, _ = open_table(con, "movielens_movies", self.folder, file, ["movieId", "title", "genres"], self.download)
        genres = f"list_filter(string_split(genres, '|'), lambda x: x <> '{NO_GENRE}')"
        return f"SELECT {ROW}, movieId AS item_id, title, {genres} AS categories FROM {rows}"

    def _users_100k(self, con: duckdb.DuckDBPyConnection) -> str:
        rows = self._open(con, "users", FileOptions(path="u.user", delimiter="|", quote=None, header=False), 5)
        known = "json_object('age', \"2\", 'gender', \"3\", 'occupation', \"4\", 'zip', \"5\")"
        return f'SELECT {ROW}, "1" AS user_id, {known}::VARCHAR AS attributes FROM {rows}'

    def _users_1m(self, con: duckdb.DuckDBPyConnection) -> str:
        rows = self._double_colons(con, "users.dat", 5)
        occupations = f"[{', '.join(text(name) for name in OCCUPATIONS_1M)}]"
        occupation = f"coalesce({occupations}[TRY_CAST(f[4] AS INTEGER) + 1], f[4])"
        known = f"json_object('gender', f[2], 'age', f[3], 'occupation', {occupation}, 'zip', f[5])"
        return f"SELECT {ROW}, f[1] AS user_id, {known}::VARCHAR AS attributes FROM {rows}"

    def _open(self, con: duckdb.DuckDBPyConnection, table: str, file: FileOptions, num_columns: int) -> str:
        columns = [str(i + 1) for i in range(num_columns)]
        return open_table(con, f"movielens_{table}", self.folder, file, columns, self.download)[0]

    def _double_colons(self, con: duckdb.DuckDBPyConnection, file: str, num_fields: int) -> str:
        """SQL of a `::` file with its fields as the list `f`."""
        table = f"movielens_{file.removesuffix('.dat')}"
        con.register(table, read_lines([text_file(self.folder / file)], "latin-1"))
        broken = f"'broken row: expected {num_fields} fields, found ' || len(f)"
        return (
            f"(SELECT * EXCLUDE (f), CASE WHEN len(f) = {num_fields} THEN f END AS f, "
            f"CASE WHEN len(f) <> {num_fields} THEN {broken} END AS _reject "
            f"FROM (SELECT *, string_split(rtrim(_raw, E'\\r\\n'), '::') AS f FROM {table}))"
        )
