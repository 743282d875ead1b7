"""UCI Online Retail: invoice lines of a British gift shop, 2010-12 to 2011-12.

In: the CSV (plain or gzipped) in the folder `source.path`. Out: purchases, and products with their most frequent
description and price. What is no purchase of a known customer is rejected with the reason: the first of cancellation,
missing user_id, not a product, quantity not positive.
"""

from pathlib import Path
from typing import ClassVar, Literal

import duckdb

from recops.data.sources._tables import FileOptions, open_table
from recops.data.sql import text
from recops.params import Group

COLUMNS = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
FEES = ("POST", "DOT", "M", "C2", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK")
PRODUCT = "upper(trim(StockCode))"  # the file writes 85123A and 85123a for one product


class OnlineRetail:
    class Options(Group):
        file: str = "*retail*.csv*"
        value: Literal["amount", "quantity"] = "amount"
        not_products: list[str] = list(FEES)
        timestamp_unit: ClassVar[str] = "iso"

    download = (
        "download 'Online Retail' from archive.ics.uci.edu/dataset/352, save the sheet as CSV with ISO times, "
        "and put it in source.path as online-retail.csv (or .csv.gz)"
    )

    def __init__(self, options: Options, path: Path | None) -> None:
        self.options = options
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Events (one for each invoice line) and items (one for each product code), with titles and prices."""
        files = FileOptions(path=self.options.file)
        events, _ = open_table(con, "online_retail_events", self.folder, files, COLUMNS, self.download)
        items, _ = open_table(con, "online_retail_items", self.folder, files, COLUMNS, self.download)
        is_fee = f"{PRODUCT} IN ({', '.join(text(code.upper()) for code in self.options.not_products) or 'NULL'})"
        value = (
            "Quantity"
            if self.options.value == "quantity"
            else "TRY_CAST(Quantity AS INTEGER) * TRY_CAST(UnitPrice AS DOUBLE)"
        )
        return {
            "events": f"""
                SELECT _file, _line, _raw, _row,
                    CASE WHEN _reject IS NOT NULL THEN _reject
                         WHEN InvoiceNo LIKE 'C%' THEN 'cancellation'
                         WHEN coalesce(trim(CustomerID), '') = '' THEN 'missing user_id'
                         WHEN {is_fee} THEN 'not a product'
                         WHEN TRY_CAST(Quantity AS INTEGER) <= 0 THEN 'quantity not positive' END AS _reject,
                    regexp_replace(CustomerID, '\\.0$', '') AS user_id, {PRODUCT} AS item_id, InvoiceDate AS timestamp,
                    'purchase' AS event, {value} AS value, InvoiceNo AS session_id,
                    json_object('country', Country)::VARCHAR AS context
                FROM {events}""",
            "items": f"""
                SELECT min(_file) AS _file, min(_line) AS _line, min(_row) AS _row,
                    arg_min(_raw, _row) AS _raw, {PRODUCT} AS item_id,
                    {_most_frequent("nullif(trim(Description), '')")} AS title,
                    {_most_frequent("CASE WHEN TRY_CAST(UnitPrice AS FLOAT) > 0 THEN UnitPrice END")} AS price
                FROM {items} WHERE _reject IS NULL AND NOT coalesce({is_fee}, false) GROUP BY {PRODUCT}""",
        }


def _most_frequent(column: str) -> str:
    """SQL of the most frequent value; of equally frequent ones the first in the alphabet."""
    counted = f"map_entries(histogram({column}))"
    return f"list_sort(list_transform({counted}, lambda e: {{'n': -e.value::BIGINT, 'v': e.key}}))[1].v"
