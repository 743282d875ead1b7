"""Clicks on the Brazilian news portal G1 (Globo.com, 2017), by session.

In: the folder `source.path` with `clicks.tar.xz` (or another tar) or the unpacked `clicks_hour_*.csv` and, if there,
`articles_metadata.csv`. Out: `click` events with session and context; articles with category and time of publication.
"""

import shutil
import tarfile
from pathlib import Path
from typing import ClassVar

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.errors import CallError
from recops.params import Group

CONTEXT = {
    "environment": "click_environment",
    "device_group": "click_deviceGroup",
    "os": "click_os",
    "country": "click_country",
    "region": "click_region",
    "referrer_type": "click_referrer_type",
}


class Globo:
    class Options(Group):
        clicks: str = "**/clicks_hour_*.csv"
        archive: str = "clicks.tar*"
        articles: str = "**/articles_metadata.csv"
        timestamp_unit: ClassVar[str] = "ms"

    download = (
        "download 'News Portal User Interactions by Globo.com' from kaggle.com/datasets/gspmoreira and put its folder "
        "clicks, or clicks.tar.xz, in source.path"
    )

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events; items where their file is there. An archive is unpacked to DuckDB's temporary folder (220 MB)."""
        folder = self.folder
        if not matching(folder, self.options.clicks):
            folder = self._unpacked(con)
        columns = ["user_id", "session_id", "click_article_id", "click_timestamp", *CONTEXT.values()]
        rows, _ = open_table(con, "globo_clicks", folder, FileOptions(path=self.options.clicks), columns, self.download)
        context = ", ".join(f"'{ours}', {theirs}" for ours, theirs in CONTEXT.items())
        result = {
            "events": "SELECT _file, _line, _raw, _row, _reject, user_id, click_article_id AS item_id, "
            "click_timestamp AS timestamp, 'click' AS event, session_id, "
            f"json_object({context})::VARCHAR AS context FROM {rows}"
        }
        if matching(self.folder, self.options.articles):
            columns = ["article_id", "category_id", "created_at_ts", "publisher_id", "words_count"]
            file = FileOptions(path=self.options.articles)
            rows, _ = open_table(con, "globo_articles", self.folder, file, columns, self.download)
            result["items"] = (
                "SELECT _file, _line, _raw, _row, _reject, article_id AS item_id, [category_id] AS categories, "
                "make_timestamp(TRY_CAST(created_at_ts AS BIGINT) * 1000) AS published_at, "
                "json_object('publisher_id', publisher_id, 'words_count', words_count)::VARCHAR AS attributes "
                f"FROM {rows}"
            )
        return result

    def _unpacked(self, con: duckdb.DuckDBPyConnection) -> Path:
        archives = matching(self.folder, self.options.archive)
        if not archives:
            raise CallError(f"{self.folder}: neither {self.options.clicks} nor {self.options.archive}; {self.download}")
        spill = Path(con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0])
        try:
            with tarfile.open(archives[0]) as archive:
                for member in filter(tarfile.TarInfo.isfile, archive):
                    _unpack(archive, member, spill)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise CallError(f"{archives[0]}: not readable as a tar archive: {error}; {self.download}") from None
        return spill


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """A file of the archive, below `folder`. tarfile's own filters are younger than Python 3.11."""
    target, content = folder / member.name, archive.extractfile(member)
    if content is None or not target.resolve().is_relative_to(folder.resolve()):
        raise tarfile.TarError(f"{member.name!r} is no file below the folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
