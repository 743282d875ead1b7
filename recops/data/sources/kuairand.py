"""KuaiRand: videos shown in the Kuaishou app, with clicks, likes and watch times.

In: the folder `source.path` with `log_*` (CSV or Parquet) and, if there, `video_features_basic_*` and
`user_features_*`. Out: for each exposure an `impression` and, as they happened, `click`, `like`, `share` (forwarded),
`dislike` (hated) and `play` events; items and users with their features as
attributes. A row is such an exploded record: several stand on one line. A `play` is by option a long view, as the app
says, with the seconds watched as its value, or anything watched at all, with the share of the video watched (above 1
where it ran again). Follows and comments concern the author and
are left out.
"""

from pathlib import Path
from typing import ClassVar, Literal

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.data.sources._text import Dialect, header, text_file
from recops.data.sql import name, text
from recops.params import Group

KINDS = {"is_click": "click", "is_like": "like", "is_forward": "share", "is_hate": "dislike"}
LOG_COLUMNS = ["user_id", "video_id", "time_ms", "play_time_ms", "tab", *KINDS]
IS_PLAY = {"seconds": "TRY_CAST(long_view AS INTEGER) = 1", "share": "TRY_CAST(play_time_ms AS DOUBLE) > 0"}
WATCHED = {
    "seconds": "TRY_CAST(play_time_ms AS FLOAT) / 1000",
    "share": "TRY_CAST(play_time_ms AS DOUBLE) / nullif(TRY_CAST(duration_ms AS DOUBLE), 0)",
}


class Kuairand:
    class Options(Group):
        logs: str = "log_*"
        videos: str = "video_features_basic_*.csv*"
        users: str = "user_features_*.csv*"
        value: Literal["seconds", "share"] = "seconds"
        timestamp_unit: ClassVar[str] = "ms"

    download = "download KuaiRand from kuairand.com, unpack it and put the files of its folder data in source.path"

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events; items and users where their files are there."""
        logs = matching(self.folder, self.options.logs)
        is_parquet = bool(logs) and logs[0].name.endswith((".parquet", ".parquet.gz"))
        file = FileOptions(path=self.options.logs, format="parquet" if is_parquet else "csv")
        value = self.options.value
        columns = [*LOG_COLUMNS, "long_view" if value == "seconds" else "duration_ms"]
        rows, _ = open_table(con, "kuairand_log", self.folder, file, columns, self.download)
        happened = ", ".join(
            f"CASE WHEN TRY_CAST({flag} AS INTEGER) = 1 THEN '{kind}' END" for flag, kind in KINDS.items()
        )
        happened += f", CASE WHEN {IS_PLAY[value]} THEN 'play' END"
        kinds = f"list_filter(['impression', {happened}], lambda x: x IS NOT NULL)"
        result = {
            "events": f"""
                SELECT _file, _line, _raw, _row * 10 + place AS _row, _reject, user_id, video_id AS item_id,
                    time_ms AS timestamp, event,
                    CASE WHEN event = 'play' THEN {WATCHED[value]} END AS value,
                    json_object('tab', tab)::VARCHAR AS context
                FROM (SELECT *, unnest({kinds}) AS event, generate_subscripts({kinds}, 1) AS place FROM {rows})"""
        }
        if matching(self.folder, self.options.videos):
            columns = ["video_id", "tag", "upload_dt"]
            kept = ["author_id", "video_type", "upload_type", "video_duration", "music_id", "music_type"]
            file = FileOptions(path=self.options.videos)
            rows, _ = open_table(con, "kuairand_videos", self.folder, file, columns + kept, self.download)
            result["items"] = (
                "SELECT _file, _line, _raw, _row, _reject, video_id AS item_id, "
                "list_filter(string_split(tag, ','), lambda x: x <> '') AS categories, upload_dt AS published_at, "
                f"{_attributes(kept)} FROM {rows}"
            )
        users = matching(self.folder, self.options.users)
        if users:
            kept = [column for column in header(text_file(users[0]), Dialect()) if column != "user_id"]
            file = FileOptions(path=self.options.users)
            rows, _ = open_table(con, "kuairand_users", self.folder, file, ["user_id", *kept], self.download)
            result["users"] = f"SELECT _file, _line, _raw, _row, _reject, user_id, {_attributes(kept)} FROM {rows}"
        return result


def _attributes(columns: list[str]) -> str:
    pairs = (f"{text(column)}, {_value(column)}" for column in columns)
    return f"json_object({', '.join(pairs)})::VARCHAR AS attributes"


def _value(column: str) -> str:
    """The onehot_feat columns hold names of classes that happen to be numbers: `class 3`, lest they be counted with."""
    class_of = f"'class ' || TRY_CAST(TRY_CAST({name(column)} AS DOUBLE) AS INTEGER)"
    return class_of if column.startswith("onehot_feat") else name(column)
