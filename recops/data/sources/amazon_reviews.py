"""Amazon Review Data (Ni et al., 2018): star ratings, and products with title, description, price and picture.

In: the folder `source.path` with the reviews of one category and its `meta_*` file, JSON lines. Out: rating events and
items; of the text of a review nothing is kept.
"""

from pathlib import Path
from typing import ClassVar

import duckdb

from recops.data.sources._tables import FileOptions, matching, open_table
from recops.params import Group

ENTITIES = {"&#39;": "''", "&quot;": '"', "&lt;": "<", "&gt;": ">", "&amp;": "&"}


class AmazonReviews:
    class Options(Group):
        reviews: str = "[!m]*.json*"
        metadata: str = "meta_*.json*"
        timestamp_unit: ClassVar[str] = "s"

    download = (
        "download a category's reviews (5-core) and metadata from nijianmo.github.io/amazon, and put both in "
        "source.path as <Category>_5.json.gz and meta_<Category>.json.gz"
    )

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events, and items where there is a metadata file."""
        reviews = FileOptions(path=self.options.reviews, format="jsonl")
        keys = ["reviewerID", "asin", "overall", "unixReviewTime"]
        rows, field = open_table(con, "amazon_reviews", self.folder, reviews, keys, self.download)
        result = {
            "events": f"SELECT _file, _line, _raw, _row, _reject, {field('reviewerID')} AS user_id, "
            f"{field('asin')} AS item_id, {field('unixReviewTime')} AS timestamp, 'rating' AS event, "
            f"{field('overall')} AS value FROM {rows}"
        }
        if matching(self.folder, self.options.metadata):
            metadata = FileOptions(path=self.options.metadata, format="jsonl")
            keys = ["asin", "title", "description", "category", "price", "imageURLHighRes", "imageURL", "brand"]
            rows, field = open_table(con, "amazon_items", self.folder, metadata, keys, self.download)
            images = f"list_concat({_list(field('imageURLHighRes'))}, {_list(field('imageURL'))})"
            categories = f"list_transform({_list(field('category'))}, lambda x: {_plain('x')})"
            # Some prices are the HTML of the page around them.
            price = f"replace(regexp_extract({field('price')}, '^\\$([0-9,]+(\\.[0-9]+)?)', 1), ',', '')"
            result["items"] = f"""
                SELECT _file, _line, _raw, _row, _reject, {field("asin")} AS item_id,
                    {_plain(field("title"))} AS title,
                    {_plain(f"array_to_string({_list(field('description'))}, ' ')")} AS text,
                    list_filter({categories}, lambda x, i: list_position({categories}, x) = i) AS categories,
                    {images}[1] AS image, {price} AS price,
                    json_object('brand', nullif({field("brand")}, ''))::VARCHAR AS attributes FROM {rows}"""
        return result


def _list(column: str) -> str:
    """SQL of a JSON list of texts; anything else is an empty list."""
    return f"coalesce(TRY_CAST(TRY_CAST({column} AS JSON) AS VARCHAR[]), [])"


def _plain(column: str) -> str:
    """SQL of a text without HTML tags and entities."""
    result = f"regexp_replace({column}, '<[^>]*>', ' ', 'g')"
    for entity, character in ENTITIES.items():
        result = f"replace({result}, '{entity}', '{character}')"
    return f"trim(regexp_replace({result}, '\\s+', ' ', 'g'))"
