"""Arguments of `export_bundle` that its tests share: a catalogue of nothing but ids, and facts without content."""

from recops.release.export import FACTS, ITEM_COLUMNS


def items(*item_ids: str) -> dict[str, list]:
    return {column: list(item_ids) if column == "item_id" else [None] * len(item_ids) for column in ITEM_COLUMNS}


def facts(**more) -> dict:
    return {**dict.fromkeys(FACTS), "model": "most_popular", "remove_seen": True, **more}
