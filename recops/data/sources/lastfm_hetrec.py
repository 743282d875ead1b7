"""Last.fm of HetRec 2011: how often 1,892 users played each artist, the tags they gave, and who is whose friend.

In: the folder `source.path`, unpacked. Out, by the option `recommend`, all without time (set source.order to
`unordered`):

- `artists`: one `play` a user and artist, value the number of plays; artists with the five tags most users gave them
  as categories.
- `tags`: one `like` a user and tag, value the number of artists the user gave it to; tags with their names. Its raw
  row is the first of them: the other artists of the pair are counted in the value.
- `people`: one `like` a user and friend; the items are the users. The file has each friendship in both directions:
  set split.pairs to `undirected`, so that neither tells of the other.
"""

from pathlib import Path
from typing import Literal

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.params import Group


class LastfmHetrec:
    class Options(Group):
        recommend: Literal["artists", "tags", "people"] = "artists"

    download = "download hetrec2011-lastfm-2k.zip from grouplens.org/datasets/hetrec-2011 and unpack it in source.path"

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events and items."""
        return {"artists": self._artists, "tags": self._tags, "people": self._people}[self.options.recommend](con)

    def _tags(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        given = self._rows(con, "user_taggedartists", ["userID", "artistID", "tagID"])
        named = self._rows(con, "tags", ["tagID", "tagValue"])
        return {
            "events": "SELECT min(_file) AS _file, min(_line) AS _line, min(_row) AS _row, "
            "arg_min(_raw, _row) AS _raw, _reject, userID AS user_id, tagID AS item_id, 'like' AS event, "
            "count(*) AS value "
            f"FROM {given} GROUP BY userID, tagID, _reject",
            "items": f"SELECT _file, _line, _raw, _row, _reject, tagID AS item_id, tagValue AS title FROM {named}",
        }

    def _people(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        friends = self._rows(con, "user_friends", ["userID", "friendID"])
        return {
            "events": "SELECT _file, _line, _raw, _row, _reject, userID AS user_id, friendID AS item_id, "
            f"'like' AS event FROM {friends}"
        }

    def _artists(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The tags of an artist are its categories."""
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
