"""Last.fm of HetRec 2011: how often 1,892 users played each artist, and the tags they gave.

In: the folder `source.path` with `user_artists.dat`, `artists.dat` and, if there, `user_taggedartists.dat` with
`tags.dat`. Out: one `play` a user and artist, value the number of plays, without time (set source.order to
`unordered`); artists with the five tags most users gave them as categories.
"""

from pathlib import Path

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.params import Group


class LastfmHetrec:
    class Options(Group):
        """Nothing to set."""

    download = "download hetrec2011-lastfm-2k.zip from grouplens.org/datasets/hetrec-2011 and unpack it in source.path"

    def __init__(self, options: Options, path: Path | None) -> None:
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events and items."""
        plays = self._rows(con, "user_artists", ["userID", "artistID", "weight"])
        artists = self._rows(con, "artists", ["id", "name", "url", "pictureURL"])
        tags = "SELECT NULL::VARCHAR AS artist, NULL::VARCHAR[] AS tags WHERE false"
        if matching(self.folder, "user_taggedartists.dat") and matching(self.folder, "tags.dat"):
            given = self._rows(con, "user_taggedartists", ["userID", "artistID", "tagID"])
            named = self._rows(con, "tags", ["tagID", "tagValue"])
            tags = f"""
                SELECT artist, list(tag ORDER BY num_users DESC, tag)[:5] AS tags FROM (
                    SELECT artistID AS artist, tagValue AS tag, count(DISTINCT userID) AS num_users
                    FROM {given} g JOIN {named} n ON g.tagID = n.tagID GROUP BY ALL
                ) GROUP BY artist"""
        return {
            "events": "SELECT _file, _line, _raw, _row, _reject, userID AS user_id, artistID AS item_id, "
            f"'play' AS event, weight AS value FROM {plays}",
            "items": "SELECT _file, _line, _raw, _row, _reject, id AS item_id, name AS title, tags AS categories, "
            f"pictureURL AS image, json_object('url', url)::VARCHAR AS attributes FROM {artists} a "
            f"LEFT JOIN ({tags}) t ON t.artist = a.id",
        }

    def _rows(self, con: duckdb.DuckDBPyConnection, table: str, columns: list[str]) -> str:
        file = FileOptions(path=f"{table}.dat", delimiter="\t", quote=None)
        return open_table(con, f"lastfm_{table}", self.folder, file, columns, self.download)[0]
