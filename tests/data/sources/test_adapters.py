"""Each adapter of a public set on a few rows of its format, made up here."""

import gzip
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recops import plugins
from recops.data.ingest import ingest
from recops.errors import CallError
from recops.params import IngestParams, SourceParams


def read(folder: Path, name: str, order: str = "time", path: str = ".", **options: object) -> tuple[dict, dict]:
    params = SourceParams(name=name, path=path, order=order, options=options)
    counts = ingest(params, IngestParams(), folder, folder / "out")
    tables = ("events", "items", "users", "rejected")
    return counts, {table: pl.read_parquet(folder / "out" / f"{table}.parquet") for table in tables}


def second(number: int) -> datetime:
    return datetime.fromtimestamp(number, UTC)


@pytest.mark.parametrize("name", [n for n in plugins.names("data.sources") if n != "movielens_small"])
def test_missing_files_say_what_to_download(tmp_path: Path, name: str) -> None:
    options = {"events": {"path": "log.csv", "event": "click", "columns": {"user_id": "u", "item_id": "i"}}}
    with pytest.raises(CallError) as error:
        read(tmp_path, name, **(options if name == "files" else {}))
    assert plugins.load("data.sources", name).download in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_movielens_100k(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("7\t1\t5\t100\n8\t1\t2\t50\n")
    flags = "|".join("1" if i in (1, 5) else "0" for i in range(19))
    (tmp_path / "u.item").write_bytes(f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n".encode("latin-1"))
    (tmp_path / "u.user").write_text("7|24|M|technician|85711\n")
    _, tables = read(tmp_path, "movielens")
    assert tables["events"].select("user_id", "item_id", "timestamp", "event", "value").rows() == [
        ("8", "1", second(50), "rating", 2.0),
        ("7", "1", second(100), "rating", 5.0),
    ]
    assert tables["items"].select("item_id", "title", "categories").rows() == [
        ("1", "Misérables, Les (1995)", ["Action", "Comedy"])
    ]
    assert json.loads(tables["users"]["attributes"][0])["occupation"] == "technician"
    assert read(tmp_path, "movielens", min_rating=3)[0]["rejected_by_reason"] == {"below min_rating": 1}


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::5::100\n1::3::4\n")
    (tmp_path / "movies.dat").write_bytes("2::Café: Flesh (1982)::Drama|Sci-Fi\n".encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::25::99::1\n")
    _, tables = read(tmp_path, "movielens")
    occupations = [json.loads(attributes)["occupation"] for attributes in tables["users"]["attributes"]]
    assert occupations == ["K-12 student", "99"]
    assert tables["events"].select("user_id", "item_id", "value").rows() == [("1", "2", 5.0)]
    assert tables["rejected"].rows() == [
        ("events", "ratings.dat", 2, "broken row: expected 4 fields, found 3", "1::3::4")
    ]
    assert tables["items"].row(0)[1:4] == ("Café: Flesh (1982)", None, ["Drama", "Sci-Fi"])
    assert json.loads(tables["users"]["attributes"][0])["zip"] == "48067"


def test_movielens_latest(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(b"userId,movieId,rating,timestamp\n1,2,3.5,100\n1,3,1,\n"))
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n2,"City, The",(no genres listed)\n3,B,A|B\n')
    counts, tables = read(tmp_path, "movielens")
    assert (counts["events"], counts["rejected_by_reason"]) == (1, {"missing timestamp": 1})
    assert tables["items"].select("title", "categories").rows() == [("City, The", []), ("B", ["A", "B"])]
    assert read(tmp_path, "movielens", "ordered")[0]["events"] == 2


def test_online_retail(tmp_path: Path) -> None:
    (tmp_path / "online-retail.csv").write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,85123A,LAMP,2,2010-12-01 08:26:00,1.5,17850.0,UK\n"
        "1,85123A,LAMP,2,2010-12-01 08:26:00,1.5,17850.0,UK\n"
        "2,85123a,?,4,2010-12-01 09:00:00,2,17851.0,UK\n"
        "C3,85123A,LAMP,-2,2010-12-02 08:26:00,1.5,,UK\n"
        "4,POST,POSTAGE,1,2010-12-02 08:26:00,18,17850.0,UK\n"
        "5,22,CUP,3,2010-12-02 08:26:00,1,,UK\n"
        "6,22,CUP,0,2010-12-02 08:26:00,1,17850.0,UK\n"
    )
    _, tables = read(tmp_path, "online_retail")
    assert tables["events"].select("user_id", "item_id", "event", "value", "session_id").rows() == [
        ("17850", "85123A", "purchase", 3.0, "1"),
        ("17851", "85123A", "purchase", 8.0, "2"),
    ]
    assert tables["rejected"].select("line", "reason").rows() == [
        (3, "duplicate"),
        (5, "cancellation"),
        (6, "not a product"),
        (7, "missing user_id"),
        (8, "quantity not positive"),
    ]
    assert tables["items"].select("item_id", "title", "price").rows() == [("85123A", "LAMP", 1.5), ("22", "CUP", 1.0)]
    assert read(tmp_path, "online_retail", value="quantity")[1]["events"]["value"].to_list() == [2.0, 4.0]


def test_amazon_reviews(tmp_path: Path) -> None:
    review = {"reviewerID": "A", "asin": "B1", "overall": 4.0, "unixReviewTime": 86400, "reviewText": "fine"}
    (tmp_path / "Gift_5.json.gz").write_bytes(gzip.compress(json.dumps(review).encode()))
    products = [
        {"asin": "B1", "title": "Mum&#39;s <b>Card</b>", "description": ["one", "two"], "category": ["Gift", "Gift"]}
        | {"price": "$1,250.00", "imageURLHighRes": [], "imageURL": ["http://x/1.jpg"], "brand": "Acme"},
        {"asin": "B2", "title": "", "description": [], "category": [], "price": "\n<div>", "imageURL": [], "brand": ""},
    ]
    (tmp_path / "meta_Gift.json").write_text("\n".join(map(json.dumps, products)))
    _, tables = read(tmp_path, "amazon_reviews")
    assert tables["events"].select("user_id", "item_id", "timestamp", "value").rows() == [
        ("A", "B1", second(86400), 4.0)
    ]
    found = tables["items"].select("title", "text", "categories", "image", "price", "attributes").rows()
    assert found[0] == ("Mum's Card", "one two", ["Gift"], "http://x/1.jpg", 1250.0, '{"brand":"Acme"}')
    assert found[1] == (None, None, [], None, None, '{"brand":null}')


def test_mind_without_times(tmp_path: Path) -> None:
    (tmp_path / "behaviors.tsv").write_text(
        "10\tU1\tn1 n2\tn3-0 n4-1\n11\tU1\tn1 n2\tn5-1\n12\tU2\t\tn1-0\n13\tU2\n14\tU3\t\t\n"
    )
    header = "news_id\ttitle\tabstract\turl\tdatePublished\tdateModified\tpublisher\tsentiment\tsubtopic\n"
    (tmp_path / "news.tsv").write_text(
        header + 'n1\tA "title\tabout\thttp://x\t24.05.2022\t25.05.2022\tQ1\tneutral\t38\n'
    )
    _, tables = read(tmp_path, "mind", "ordered")
    assert tables["events"].select("user_id", "event", "item_id", "rank", "request_id").rows() == [
        ("U1", "click", "n1", None, None),
        ("U1", "click", "n2", None, None),
        ("U1", "impression", "n3", 1, "10"),
        ("U1", "impression", "n4", 2, "10"),
        ("U1", "click", "n4", 2, "10"),
        ("U1", "impression", "n5", 1, "11"),
        ("U1", "click", "n5", 1, "11"),
        ("U2", "impression", "n1", 1, "12"),
    ]
    assert tables["rejected"].select("line", "reason").rows() == [
        (4, "broken row: expected 4 fields, found 2"),
        (5, "missing item_id"),
    ]
    assert tables["items"].select("title", "text", "categories", "published_at").rows() == [
        ('A "title', "about", ["subtopic 38"], datetime(2022, 5, 24, tzinfo=UTC))
    ]
    with pytest.raises(CallError, match=r"source\.order"):
        read(tmp_path, "mind")


def test_mind_with_times(tmp_path: Path) -> None:
    (tmp_path / "behaviors.tsv").write_text("1\tU1\t11/15/2019 8:55:22 PM\tn1\tn2-1\n")
    (tmp_path / "news.tsv").write_text("n1\tsports\tgolf\tA title\tabout\thttp://x\t[]\t[]\n")
    _, tables = read(tmp_path, "mind", history=False)
    assert tables["events"]["timestamp"].to_list() == [datetime(2019, 11, 15, 20, 55, 22, tzinfo=UTC)] * 2
    assert tables["items"]["categories"].to_list() == [["sports", "golf"]]
    assert read(tmp_path, "mind")[0]["rejected_by_reason"] == {"missing timestamp": 1}


@pytest.mark.parametrize("is_parquet", [False, True])
def test_kuairand(tmp_path: Path, is_parquet: bool) -> None:
    names = [
        "user_id",
        "video_id",
        "time_ms",
        "is_click",
        "is_like",
        "is_forward",
        "is_hate",
        "long_view",
        "play_time_ms",
    ]
    log = pl.DataFrame(
        [(1, 5, 2000, 1, 0, 0, 0, 1, 1500, 3), (1, 6, 1000, 0, 0, 0, 1, 0, 10, 3)], [*names, "tab"], orient="row"
    )
    if is_parquet:
        log.write_parquet(tmp_path / "log_1.parquet")
    else:
        log.write_csv(tmp_path / "log_1.csv")
    (tmp_path / "video_features_basic_pure.csv").write_text(
        "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_id,music_type,tag\n"
        '5,9,NORMAL,2022-04-10,Import,87433.0,1,9.0,"39,12"\n'
    )
    (tmp_path / "user_features_pure.csv").write_text(
        'user_id,degree,range,onehot_feat4,onehot_feat5\n1,full,"[100,1k)",13.0,\n'
    )
    _, tables = read(tmp_path, "kuairand")
    assert tables["events"].select("item_id", "event", "value", "timestamp").rows() == [
        ("6", "impression", None, second(1)),
        ("6", "dislike", None, second(1)),
        ("5", "impression", None, second(2)),
        ("5", "click", None, second(2)),
        ("5", "play", 1.5, second(2)),
    ]
    if is_parquet:
        log.with_columns(duration_ms=pl.Series([3000, 0])).write_parquet(tmp_path / "log_1.parquet")
        shares = read(tmp_path, "kuairand", value="share")[1]["events"].filter(event="play")
        # Watched for a moment is a play as well; of a video of unknown length there is no share.
        assert shares.select("item_id", "value").rows() == [("6", None), ("5", 0.5)]
    assert tables["items"].row(0)[3] == ["39", "12"]
    assert json.loads(tables["users"]["attributes"][0]) == {
        **{"degree": "full", "range": "[100,1k)"},
        **{"onehot_feat4": "class 13", "onehot_feat5": None},
    }


def test_lastfm_hetrec(tmp_path: Path) -> None:
    (tmp_path / "user_artists.dat").write_text("userID\tartistID\tweight\n2\t51\t13883\n")
    (tmp_path / "artists.dat").write_text('id\tname\turl\tpictureURL\n51\t"Duran\thttp://x\thttp://y\n52\tB\t\t\n')
    (tmp_path / "user_taggedartists.dat").write_text("userID\tartistID\ttagID\n1\t51\t7\n1\t51\t8\n2\t51\t8\n")
    (tmp_path / "tags.dat").write_bytes(b"tagID\ttagValue\n7\tpop\n8\tcaf\xe9\n")
    _, tables = read(tmp_path, "lastfm_hetrec", "unordered")
    assert tables["events"].select("user_id", "item_id", "event", "value").rows() == [("2", "51", "play", 13883.0)]
    assert tables["items"].select("title", "categories", "image").rows() == [
        ('"Duran', ["caf\ufffd", "pop"], "http://y"),
        ("B", None, None),
    ]


def test_lastfm_hetrec_of_tags_and_people(tmp_path: Path) -> None:
    (tmp_path / "user_taggedartists.dat").write_text("userID\tartistID\ttagID\n1\t51\t7\n1\t52\t7\n2\t51\t8\n")
    (tmp_path / "tags.dat").write_text("tagID\ttagValue\n7\tpop\n8\trock\n")
    (tmp_path / "user_friends.dat").write_text("userID\tfriendID\n1\t2\n2\t1\n")
    _, tags = read(tmp_path, "lastfm_hetrec", "unordered", recommend="tags")
    assert sorted(tags["events"].select("user_id", "item_id", "value").rows()) == [("1", "7", 2.0), ("2", "8", 1.0)]
    assert tags["items"].select("item_id", "title").rows() == [("7", "pop"), ("8", "rock")]
    _, people = read(tmp_path, "lastfm_hetrec", "unordered", recommend="people")
    assert people["events"].select("user_id", "item_id", "event").rows() == [("1", "2", "like"), ("2", "1", "like")]


def test_sequences(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"1 5\n1 6\n\n2 5 7 5\n3\n"))
    _, tables = read(tmp_path, "sequences", "ordered", event="play")
    assert tables["events"].select("user_id", "item_id", "event").rows() == [
        (user, item, "play") for user, item in [("1", "5"), ("1", "6"), ("2", "5"), ("2", "7"), ("2", "5")]
    ]
    assert tables["rejected"].select("line", "reason").rows() == [(5, "missing item_id")]
    assert read(tmp_path, "sequences", "ordered", path="a.txt.gz")[0]["events"] == 5
    (tmp_path / "b.txt").write_text("1 2\n")
    with pytest.raises(CallError, match=r"expected one file, found a\.txt\.gz, b\.txt"):
        read(tmp_path, "sequences", "ordered")


@pytest.mark.parametrize("is_archive", [False, True])
def test_globo(tmp_path: Path, is_archive: bool) -> None:
    header = "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,"
    header += "click_environment,click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"
    hours = {
        f"clicks/clicks_hour_00{hour}.csv": f"{header}{hour},9,1,2,77,{hour + 1}500,4,3,20,1,20,2\n" for hour in (0, 1)
    }
    if is_archive:
        with tarfile.open(tmp_path / "clicks.tar.xz", "w:xz") as archive:
            for name, text in hours.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    else:
        (tmp_path / "clicks").mkdir()
        for name, text in hours.items():
            (tmp_path / name).write_text(text)
    (tmp_path / "articles_metadata.csv").write_text(
        "article_id,category_id,created_at_ts,publisher_id,words_count\n77,3,1500000000000,0,168\n"
    )
    _, tables = read(tmp_path, "globo")
    assert tables["events"].select("user_id", "item_id", "session_id").rows() == [("0", "77", "9"), ("1", "77", "9")]
    assert tables["events"]["timestamp"].to_list()[1] == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    assert json.loads(tables["events"]["context"][0])["os"] == "20"
    assert tables["items"].row(0, named=True)["published_at"] == datetime(2017, 7, 14, 2, 40, tzinfo=UTC)


@pytest.mark.parametrize("name", ["../outside.csv", "/tmp/outside.csv"])
def test_an_archive_puts_nothing_outside_the_folder(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "clicks.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(CallError, match=r"clicks.tar: not readable as a tar archive: .*outside.csv' is no file below"):
        read(tmp_path, "globo")
