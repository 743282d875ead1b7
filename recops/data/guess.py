"""Guesses how a user's own files are to be read, for `recops init`.

In: paths of an events file and perhaps of items and users. Out: `Guess`: the settings of the source `files`, and a
table of what was guessed and why. A guess is there to be shown and edited; nothing is read by it beyond a sample.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recops.data.sniff import Sniffed, sniff
from recops.errors import CallError
from recops.params import IngestParams

# Names of columns, lower case without accents and signs, the likeliest first; English, German, French, Spanish.
NAMES = {
    "user_id": "userid user uid customerid customer custid clientid client memberid member visitorid visitor "
    "accountid account reviewerid kundennummer kundennr kundenid kunde nutzerid nutzer benutzerid "
    "benutzer besucher idclient numeroclient utilisateur idutilisateur acheteur usuario idusuario cliente "
    "idcliente reader readerid listener listenerid viewer viewerid subscriber subscriberid",
    "item_id": "itemid item productid product sku asin articleid article stockcode movieid movie videoid video "
    "trackid track songid song newsid news contentid content isbn bookid book artistid artist listingid "
    "goodsid artikelnummer artikelnr artikelid artikel produktid produktnummer produkt filmid film buch "
    "produit idproduit codeproduit referenceproduit reference producto idproducto articulo",
    "timestamp": "timestamp time ts datetime eventtime eventtimestamp createdat created occurredat unixtime "
    "unixreviewtime date invoicedate orderdate purchasedate eventdate zeitstempel zeitpunkt zeit datum "
    "kaufdatum bestelldatum horodatage dateheure dateachat heure moment fecha hora fechahora timems at "
    "when",
    "event": "event eventtype eventname action actiontype type behavior behaviour interaction kind aktion ereignis "
    "typ art evenement evenementtype typeevenement evento tipo accion",
    "value": "rating value score stars overall bewertung wertung sterne note evaluation puntuacion quantity qty "
    "menge anzahl quantite cantidad amount betrag montant importe plays playcount weight count",
    "session_id": "sessionid session sitzung sitzungid idsession sesion visitid",
    "event_id": "eventid ereignisid interactionid uuid",
    "request_id": "requestid impressionid",
    "rank": "rank position slot rang",
}
ITEM_NAMES = {
    "item_id": NAMES["item_id"] + " id",
    "title": "title name titel bezeichnung produktname artikelname productname itemname movietitle titre nom "
    "libelle nomproduit titulo nombre headline",
    "text": "text description beschreibung abstract summary overview plot body content descriptif resume descripcion",
    "categories": "categories category genres genre tags tag kategorien kategorie warengruppe categorie rubrique rayon "
    "categoria section topic",
    "image": "image imageurl img picture pictureurl photo poster thumbnail bild bildurl foto imagen",
    "published_at": "publishedat published datepublished publishdate releasedate released createdat pubdate erschienen "
    "erscheinungsdatum veroeffentlicht datepublication parution fechapublicacion",
    "price": "price unitprice preis stueckpreis prix prixunitaire precio cost",
    "available": "available instock isavailable verfuegbar lieferbar lagernd disponible enstock",
}
USER_NAMES = {"user_id": NAMES["user_id"] + " id"}
KINDS = {
    "purchase": "purchase buy bought order ordered transaction sale checkout kauf gekauft bestellung achat achete "
    "commande compra",
    "cart": "cart addtocart addcart basket warenkorb indenwarenkorb panier ajoutpanier carrito",
    "view": "view viewed pageview detail productview pv visit ansicht angesehen vue vu consultation vista",
    "click": "click clicked klick geklickt clic clique open",
    "rating": "rating rate rated review bewertung note avis",
    "like": "like liked favorite favourite fav bookmark upvote gefallt gefaelltmir jaime megusta merkliste",
    "dislike": "dislike disliked hate downvote",
    "play": "play played listen listened stream watch watched gespielt ecoute lecture",
    "share": "share shared forward repost geteilt partage",
    "impression": "impression show shown exposure display anzeige affichage",
    "return": "return returned refund retoure rueckgabe retour remboursement devolucion",
}
# What a log without a column of kinds holds, by the name of its value.
KIND_OF_VALUE = {
    "rating": "rating score stars overall bewertung wertung sterne note evaluation puntuacion",
    "purchase": "quantity qty menge anzahl quantite cantidad amount betrag montant importe",
    "play": "plays playcount weight count",
}
UNITS = {"s": (3e8, 4.2e9), "ms": (3e11, 4.2e12), "us": (3e14, 4.2e15)}  # 1979 to 2103
DAYS = ["%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y.%m.%d"]
CLOCKS = ["", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p"]
SEPARATORS = ("|", ";", ">", ",", "/")
MAX_ATTRIBUTES = 30


@dataclass
class Guess:
    """`options` (with absolute file names) and `order` go to params.yaml under `source` with `name: files`, `events`
    (what each kind means; all known kinds, as a sample need not hold every one) to `ingest.events`. `rows`: what was
    guessed, the guess, and why."""

    options: dict[str, Any]
    events: dict[str, dict[str, Any]]
    order: str
    rows: list[tuple[str, str, str]]


def guess(events: Path, items: Path | None = None, users: Path | None = None) -> Guess:
    """Raises CallError when a file cannot be read, or when no column is a user or an item: it names those there are."""
    rows: list[tuple[str, str, str]] = []
    catalogue = None if items is None else _guess_entities("items", items, ITEM_NAMES, rows)
    people = None if users is None else _guess_entities("users", users, USER_NAMES, rows)
    known = {
        "item_id": set() if catalogue is None else catalogue[1],
        "user_id": set() if people is None else people[1],
    }
    log, order = _guess_events(events, known, rows)
    options: dict[str, Any] = {"events": log}
    if catalogue is not None:
        options["items"] = catalogue[0]
    if people is not None:
        options["users"] = people[0]
    rows.sort(key=lambda row: ("events", "items", "users").index(row[0].split()[0]))
    meanings = {
        name: kind.model_dump(exclude_none=True) for name, kind in IngestParams.model_validate({}).events.items()
    }
    return Guess(options, meanings, order, rows)


def guess_items(path: Path) -> dict[str, Any]:
    """The options of a file of items, as `source.options.items` has them. Raises CallError as `guess`."""
    return _guess_entities("items", path, ITEM_NAMES, [])[0]


def _guess_events(
    path: Path, known: dict[str, set[str]], rows: list[tuple[str, str, str]]
) -> tuple[dict[str, Any], str]:
    sniffed = sniff(path)
    options = _file_options("events", sniffed, rows)
    columns = options["columns"]
    times = {column: time for column in sniffed.columns if (time := _time(sniffed.values(column))) is not None}

    def take(ours: str, theirs: str, why: str) -> None:
        columns[ours] = theirs
        rows.append((f"events {ours}", theirs, why))

    for ours, names in NAMES.items():
        for theirs in _by_name(sniffed.columns, names, columns.values()):
            if ours == "timestamp" and theirs not in times:
                continue
            if ours == "event" and not _kinds(sniffed.values(theirs))[0]:
                continue
            if ours == "value" and not all(_is_number(value) for value in sniffed.values(theirs)):
                continue
            take(ours, theirs, "by its name")
            break
    for ours in ("user_id", "item_id"):
        if ours not in columns and known[ours]:
            share = {
                column: sum(value in known[ours] for value in values) / len(values)
                for column in sniffed.columns
                if column not in columns.values() and (values := sniffed.values(column))
            }
            likeliest = max(share, key=lambda column: share[column], default=None)
            if likeliest is not None and share[likeliest] > 0.5:
                take(ours, likeliest, f"{share[likeliest]:.0%} of its values are ids of the {ours.split('_')[0]}s file")
    if "timestamp" not in columns:
        free = [column for column in times if column not in columns.values()]
        if free:
            take("timestamp", free[-1], f"its values are times ({times[free[-1]][2]})")
    if not sniffed.has_header:
        # user, item, then the rest is how logs without a header are written.
        for ours in ("user_id", "item_id"):
            free = [column for column in sniffed.columns if column not in columns.values()]
            if ours not in columns and free:
                take(ours, free[0], "there is no header; the first columns are taken for user and item")
        free = [column for column in sniffed.columns if column not in columns.values()]
        numeric = [column for column in free if all(_is_number(value) for value in sniffed.values(column))]
        if "value" not in columns and numeric:
            take("value", numeric[0], "there is no header; the next column holds numbers")
    missing = [ours for ours in ("user_id", "item_id") if ours not in columns]
    if missing:
        raise CallError(
            f"{path}: which column is {' and which is '.join(missing)}? The columns are "
            f"{', '.join(map(repr, sniffed.columns))}; rename one, or write source.options.events.columns yourself"
        )
    _guess_kind(options, sniffed, rows)
    if "value" in columns and _has_decimal_comma(sniffed.values(columns["value"])):
        options["decimal"] = ","
        rows.append(("events decimal", ",", f"as in {next(v for v in sniffed.values(columns['value']) if ',' in v)!r}"))
    if "timestamp" not in columns:
        rows.append(("events order", "unordered", "no column holds times; set `ordered` if rows stand in their order"))
        return options, "unordered"
    unit, layout, why = times[columns["timestamp"]]
    options["timestamp_unit"] = unit
    if layout is not None:
        options["timestamp_format"] = layout
    rows.append(("events timestamp_unit", layout or unit, why))
    return options, "time"


def _guess_kind(options: dict[str, Any], sniffed: Sniffed, rows: list[tuple[str, str, str]]) -> None:
    columns = options["columns"]
    if "event" in columns:
        mapping, unknown = _kinds(sniffed.values(columns["event"]))
        options["event_map"] = {theirs: ours for theirs, ours in mapping.items() if theirs != ours}
        for theirs, ours in mapping.items():
            rows.append((f"events kind {theirs!r}", ours, "by its name"))
        for theirs in unknown:
            rows.append((f"events kind {theirs!r}", "?", "unknown: its rows are rejected unless event_map names it"))
        return
    options["event"], why = "click", "there is neither a column of kinds nor a value"
    if "value" in columns:
        options["event"], why = "rating", f"each event has a value ({columns['value']})"
        for kind, names in KIND_OF_VALUE.items():
            if _by_name([columns["value"]], names, ()):
                options["event"], why = kind, f"by the name of the value ({columns['value']})"
    rows.append(("events event", options["event"], why))


def _guess_entities(
    table: str, path: Path, names: dict[str, str], rows: list[tuple[str, str, str]]
) -> tuple[dict[str, Any], set[str]]:
    """The options of an items or users file, and the ids in its sample."""
    sniffed = sniff(path)
    options = _file_options(table, sniffed, rows)
    columns = options["columns"]
    key = next(iter(names))
    for ours, candidates in names.items():
        found = _by_name(sniffed.columns, candidates, columns.values())
        why = "by its name"
        if not found and ours == key and not sniffed.has_header:
            found, why = [sniffed.columns[0]], "there is no header; the first column is taken for the id"
        if found:
            columns[ours] = found[0]
            rows.append((f"{table} {ours}", found[0], why))
    if key not in columns:
        raise CallError(
            f"{path}: which column is {key}? The columns are {', '.join(map(repr, sniffed.columns))}; rename one, or "
            f"write source.options.{table}.columns yourself"
        )
    if "categories" in columns:
        values = sniffed.values(columns["categories"])
        for separator in SEPARATORS:
            if sum(separator in value for value in values) > 0.1 * len(values) and not values[0].startswith("["):
                options["categories_separator"] = separator
                rows.append((f"{table} categories_separator", separator, f"as in {_first_with(values, separator)!r}"))
                break
    if "price" in columns and _has_decimal_comma(sniffed.values(columns["price"])):
        options["decimal"] = ","
        rows.append((f"{table} decimal", ",", f"as in {_first_with(sniffed.values(columns['price']), ',')!r}"))
    rest = [column for column in sniffed.columns if column not in columns.values()][:MAX_ATTRIBUTES]
    if rest:
        options["attributes"] = rest
        rows.append((f"{table} attributes", ", ".join(rest), "the other columns"))
    return options, {value.strip() for value in sniffed.values(columns[key])}


def _file_options(table: str, sniffed: Sniffed, rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    rows.append((f"{table} file", sniffed.path.name, f"{len(sniffed.rows)} rows looked at"))
    for option, why in sniffed.why.items():
        rows.append((f"{table} {option}", repr(sniffed.options[option]).strip("'"), why))
    return {"path": str(sniffed.path.resolve()), **sniffed.options, "columns": {}}


def _by_name(columns: list[str], names: str, taken: Iterable[str]) -> list[str]:
    """Columns that bear one of `names`, the likeliest first; then those of which a name is one of several words."""
    order = {name: place for place, name in enumerate(names.split())}
    taken = set(taken)
    whole = [c for c in columns if c not in taken and _plain(c) in order]
    parts = [c for c in columns if c not in taken and c not in whole and any(w in order for w in _words(c))]
    return sorted(whole, key=lambda c: order[_plain(c)]) + parts


def _plain(name: str) -> str:
    """Lower case letters and digits without accents: `Kunden-Nr.` is kundennr, `évènement` evenement."""
    name = name.lower().replace("ß", "ss").replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name))


def _words(name: str) -> list[str]:
    """Words of a name that may stand for it: `event.timestampMs` has event, timestamp and ms; `user_agent` user."""
    return [_plain(word) for word in re.findall(r"[A-Z]?[^\W_A-Z]+|[A-Z]+", name.rpartition(".")[2]) if len(word) > 2]


def _kinds(values: list[str]) -> tuple[dict[str, str], list[str]]:
    """Kinds of event as they stand, mapped to ours, and those that are not known; nothing where most are unknown."""
    counts = Counter(value.strip() for value in values)
    names = {name: kind for kind, candidates in KINDS.items() for name in candidates.split()}
    mapping = {value: names[_plain(value)] for value in counts if _plain(value) in names}
    known = sum(counts[value] for value in mapping)
    if len(counts) > 50 or known < 0.5 * len(values):
        return {}, []
    return mapping, [value for value in counts if value not in mapping]


def _time(values: list[str]) -> tuple[str, str | None, str] | None:
    """Unit, strptime format (None: ISO or a number) and the reason, when all values are times."""
    if not values:
        return None
    if all(re.fullmatch(r"\d{9,16}(\.\d+)?", value.strip()) for value in values):
        numbers = [float(value) for value in values]
        for unit, (low, high) in UNITS.items():
            if all(low <= number <= high for number in numbers):
                return unit, None, f"since 1970 in {unit}, {values[0]} is {_day(numbers[0], unit)}"
        return None
    if all(_is_iso(value) for value in values):
        return "iso", None, f"ISO 8601, as in {values[0]!r}"
    # Where day and month cannot be told apart, the day comes first: most of the world writes it so.
    for layout in (day + clock for day in DAYS for clock in CLOCKS):
        if all(_fits(value.strip(), layout) for value in values):
            return "iso", layout, f"as in {values[0]!r}"
    return None


def _day(number: float, unit: str) -> str:
    """The day of a number since 1970 in `unit`."""
    return datetime.fromtimestamp(number / {"s": 1, "ms": 1e3, "us": 1e6}[unit], UTC).strftime("%Y-%m-%d")


def _is_iso(value: str) -> bool:
    value = value.strip()
    if not re.match(r"\d{4}-\d\d-\d\d", value):
        return False
    return _parses(lambda: datetime.fromisoformat(value.replace(" UTC", "Z")))


def _fits(value: str, layout: str) -> bool:
    return _parses(lambda: datetime.strptime(value, layout))


def _parses(read: Any) -> bool:
    try:
        read()
    except ValueError:
        return False
    return True


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?[\d.]*,?\d+([.,]\d+)?", value.strip()) is not None


def _has_decimal_comma(values: list[str]) -> bool:
    """Whether a comma stands before the last digits, and no value has a point there."""
    comma = sum(re.fullmatch(r"[+-]?[\d.]+,\d{1,2}", value.strip()) is not None for value in values)
    point = sum(re.fullmatch(r"[+-]?[\d,]*\.\d+", value.strip()) is not None for value in values)
    return comma > 0 and point == 0


def _first_with(values: list[str], part: str) -> str:
    return next(value for value in values if part in value)
