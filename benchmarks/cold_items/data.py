"""Four logs with something to know of their items, divided so that new items can be judged.

In: the folder of all data sets. Out: a project folder with tables, parts and vectors (`Prepared`), made by the library
itself. What was encoded is kept there, so that a second run encodes nothing.

The train part ends at the first cut of the split `cold_items`. Of each user with three events there or more the last
one is withheld: of half of these users it steers early stopping (of all models alike), of the other half it is the
test on items that were trained on. When new items are judged it is part of the history again.
"""

import gzip
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from recops.data.ingest import ingest
from recops.data.split import split_events
from recops.stages.encode import encode
from recops.stages.project import Project

QUICK_USERS = 400
LEAST_EVENTS = 3  # in the train part, of a user of whom one is withheld
ENCODED = ("text", "image", "attributes")


@dataclass(frozen=True)
class DataSet:
    """`params` of the project; `tables(data, project, quick)` writes its events and items."""

    name: str
    about: str
    encoders: tuple[str, ...]
    params: dict[str, Any]
    tables: Callable[[Path, Project], None]


@dataclass(frozen=True)
class Prepared:
    """A project whose vectors are made, and its parts: `cold` and `warm` are read by `read_judging`."""

    project: Project
    cold: Path
    warm: Path
    later: Path  # everything after the cuts, new items and others


def prepare(found: DataSet, data: Path, work: Path, quick: bool) -> Prepared:
    """Tables, parts and vectors in `work`; of about `QUICK_USERS` users where `quick`."""
    project = Project(work / f"{found.name}{'-quick' if quick else ''}")
    project.tables.mkdir(parents=True, exist_ok=True)
    params = {**found.params, "encode": {"encoders": list(found.encoders), "threads": 1}}
    params["source"] = {**params.get("source", {}), "path": str(source_of(found, data, project))}
    project.params_file.write_text(yaml.safe_dump(params), encoding="utf-8")
    found.tables(data, project)
    _without_unseen(project.tables)
    if quick:
        sample_users(project.tables / "events.parquet")
    settings = project.params
    for name, folder in (("cold_items", project.split), ("global_time", project.data / "later")):
        split = settings.split.model_copy(update={"name": name})
        split_events(project.tables / "events.parquet", folder, split, settings.ingest.events, True)
    warm = withhold(project.split, project.data / "warm")
    shutil.copy(project.split / "train.parquet", project.data / "later")
    shutil.copy(warm / "context.parquet", project.data / "later")
    encode(project)
    return Prepared(project, project.split, warm, project.data / "later")


def _without_unseen(tables: Path) -> None:
    """Leaves out items of which no event says since when they were there: they would count as old and unwanted."""
    items, events = pl.read_parquet(tables / "items.parquet"), pl.read_parquet(tables / "events.parquet")
    items.join(events, on="item_id", how="semi", maintain_order="left").write_parquet(tables / "items.parquet")


def sample_users(path: Path) -> None:
    events = pl.read_parquet(path)
    users = events["user_id"].unique().sort()
    step = max(1, len(users) // QUICK_USERS)
    events.filter(pl.col("user_id").is_in(users.gather_every(step).to_list())).write_parquet(path)


def withhold(split: Path, out: Path) -> Path:
    """Moves the last item of each user from the train part of `split` to its context, and to the parts of `out`."""
    train = pl.read_parquet(split / "train.parquet")
    positive = train.filter(pl.col("signal") == "positive")
    users = positive.group_by("user_id", maintain_order=True).agg(
        pl.col("item_id").n_unique().alias("num"), pl.last("item_id")
    )
    pairs = users.filter(pl.col("num") >= LEAST_EVENTS).select("user_id", "item_id")
    kept = train.join(pairs, on=["user_id", "item_id"], how="anti", maintain_order="left")
    withheld = positive.join(pairs, on=["user_id", "item_id"], how="semi", maintain_order="left")
    withheld = withheld.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    trained = kept.filter(pl.col("signal") == "positive").select("item_id").unique()
    judged = withheld.join(trained, on="item_id", how="semi", maintain_order="left")
    is_valid = judged["user_id"].hash(seed=1) % 2 == 0
    out.mkdir(parents=True, exist_ok=True)
    for part, rows in (("valid", judged.filter(is_valid)), ("test", judged.filter(~is_valid)), ("train", kept)):
        rows.write_parquet(out / f"{part}.parquet")
    kept.write_parquet(split / "train.parquet")
    context = [pl.read_parquet(split / "context.parquet")] if (split / "context.parquet").exists() else []
    pl.concat([*context, withheld]).sort("timestamp", maintain_order=True).write_parquet(split / "context.parquet")
    shutil.copy(split / "first_seen.parquet", out)
    withheld.write_parquet(out / "context.parquet")
    return out


def source_of(found: DataSet, data: Path, project: Project) -> Path:
    return project.root / "source" if found.name == "ml1m" else data / FOLDERS[found.name]


FOLDERS = {"nemig": "nemig-en-news", "kuairand": "kuairand-pure-part", "retail": "online-retail"}


def _ingested(data: Path, project: Project) -> None:
    params = project.params
    ingest(params.source, params.ingest, project.root, project.tables)


def _kuairand(data: Path, project: Project) -> None:
    """Of the videos the tags alone: a time of publication is another for every new item than for those trained on."""
    _ingested(data, project)
    path = project.tables / "items.parquet"
    unknown = [pl.lit(None).alias(column) for column in ("attributes", "published_at")]
    items = pl.read_parquet(path).with_columns(unknown)
    items.cast({"attributes": pl.String, "published_at": pl.Datetime("us", "UTC")}).write_parquet(path)


def _ml1m(data: Path, project: Project) -> None:
    """Ratings of 4 and 5, which all have their times; titles, genres, the year in the title, and posters."""
    folder, source = data / "movielens-1m", project.root / "source"
    source.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "posters_h128.zip") as posters:
        posters.extractall(source)
        pictures = set(posters.namelist())
    lines = (folder / "movies.dat").read_text(encoding="latin-1").splitlines()
    movies = [line.split("::") for line in lines]
    items = pl.DataFrame(
        {
            "movie": [movie for movie, _, _ in movies],
            "title": [title for _, title, _ in movies],
            "genres": [genres for _, _, genres in movies],
            "picture": [f"{movie}.jpg" if f"{movie}.jpg" in pictures else None for movie, _, _ in movies],
        }
    )
    items.write_csv(source / "movies.csv")
    with gzip.open(folder / "ratings.csv.gz") as file:
        ratings = pl.read_csv(file.read(), columns=["userId", "movieId", "rating", "timestamp"])
    ratings = ratings.filter(pl.col("rating") >= 4).sort("timestamp", maintain_order=True)
    ratings.write_csv(source / "ratings.csv")
    users = [line.split("::") for line in (folder / "users.dat").read_text(encoding="latin-1").splitlines()]
    columns = {"user": 0, "gender": 1, "age": 2, "occupation": 3}
    known = {
        name: [f"{name} {row[place]}" if place > 1 else row[place] for row in users] for name, place in columns.items()
    }
    pl.DataFrame(known).write_csv(source / "users.csv")
    _ingested(data, project)
    path = project.tables / "items.parquet"
    year = pl.col("title").str.extract(r"\((\d{4})\)$").cast(pl.Int64)
    known = pl.read_parquet(path).with_columns(attributes=pl.struct(year=year).struct.json_encode())
    known.write_parquet(path)


def _nemig(data: Path, project: Project) -> None:
    """Clicks have no times; each is put at the publication of its article, which it cannot be earlier than. So an
    article is first seen when it is published, and a user's history is what was published before. Articles that nobody
    was ever shown are left out."""
    _ingested(data, project)
    news = pl.read_csv(
        data / "nemig-en-news" / "news.tsv",
        separator="\t",
        quote_char=None,
        infer_schema=False,
        truncate_ragged_lines=True,
    )
    published = news.select(
        item_id="news_id",
        published_at=pl.col("datePublished").str.to_datetime("%d.%m.%Y", strict=False),
    )
    published = published.with_columns(pl.col("published_at").dt.replace_time_zone("UTC").dt.cast_time_unit("us"))
    path = project.tables / "events.parquet"
    events = pl.read_parquet(path)
    items = pl.read_parquet(project.tables / "items.parquet")
    items.join(events, on="item_id", how="semi", maintain_order="left").write_parquet(project.tables / "items.parquet")
    events = events.filter(pl.col("event") != "impression")
    events = events.join(published.drop_nulls(), on="item_id", how="inner", maintain_order="left")
    events = events.with_columns(timestamp=pl.col("published_at")).drop("published_at")
    events.sort("timestamp", maintain_order=True).write_parquet(path)


DATA_SETS = (
    DataSet(
        "nemig",
        "NeMig: clicks on news, titles and abstracts; new are the articles published last",
        ("text",),
        {"source": {"name": "mind", "order": "ordered"}, "split": {"valid_fraction": 0.15, "test_fraction": 0.25}},
        _nemig,
    ),
    DataSet(
        "kuairand",
        "KuaiRand: likes, shares, whole views and clicks of short videos, tags",
        ("attributes",),
        {
            "source": {"name": "kuairand", "options": {"value": "share"}},
            "ingest": {
                "events": {
                    "like": {"signal": "positive"},
                    "share": {"signal": "positive"},
                    "play": {"signal": "positive", "min_value": 0.5},
                    "click": {"signal": "positive"},
                    "dislike": {"signal": "negative"},
                    "impression": {"signal": "ignored"},
                }
            },
            "split": {"valid_fraction": 0.12, "test_fraction": 0.75},
        },
        _kuairand,
    ),
    DataSet(
        "retail",
        "Online Retail: purchases, descriptions; what a customer had before is not recommended",
        ("text",),
        {
            "source": {"name": "online_retail"},
            "ingest": {"events": {"purchase": {"signal": "positive"}, "return": {"signal": "ignored"}}},
            "split": {"valid_fraction": 0.2, "test_fraction": 0.45},
        },
        _ingested,
    ),
    DataSet(
        "ml1m",
        "MovieLens-1M: ratings of 4 and 5, titles, genres, posters",
        ENCODED,
        {
            "source": {
                "name": "files",
                "options": {
                    "events": {
                        "path": "ratings.csv",
                        "event": "rating",
                        "timestamp_unit": "s",
                        "columns": {"user_id": "userId", "item_id": "movieId", "timestamp": "timestamp"},
                    },
                    "items": {
                        "path": "movies.csv",
                        "categories_separator": "|",
                        "columns": {
                            "item_id": "movie",
                            "title": "title",
                            "categories": "genres",
                            "image": "picture",
                        },
                    },
                    "users": {
                        "path": "users.csv",
                        "columns": {"user_id": "user"},
                        "attributes": ["gender", "age", "occupation"],
                    },
                },
            },
            "split": {"valid_fraction": 0.2, "test_fraction": 0.6},
        },
        _ml1m,
    ),
)
