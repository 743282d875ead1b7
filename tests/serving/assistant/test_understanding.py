"""What rules read in a question: times, prices, titles, categories, exclusions."""

from datetime import UTC, datetime

import numpy as np
import pytest

from recops.serving.assistant import prices, times
from recops.serving.assistant.categories import Categories, stem
from recops.serving.assistant.question import Question
from recops.serving.assistant.titles import Titles, forms, year_of
from recops.serving.assistant.wishes import Prices

NOW = times.us(datetime(2024, 5, 15, 12, tzinfo=UTC))  # a Wednesday


def said(text: str, newest_year: int = 2018) -> tuple[str, str] | None:
    span, _ = times.spans(Question(text), NOW, newest_year)
    return None if span is None else (times.day_text(span.start), times.day_text(span.end - 1))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("from 1995", "1995-01-01", "1995-12-31"),
        ("a 1995 film", "1995-01-01", "1995-12-31"),
        ("the nineties", "1990-01-01", "1999-12-31"),
        ("'90s", "1990-01-01", "1999-12-31"),
        ("of the 1980s", "1980-01-01", "1989-12-31"),
        ("early 2000s", "2000-01-01", "2004-12-31"),
        ("late eighties", "1985-01-01", "1989-12-31"),
        ("from the twenties", "1920-01-01", "1929-12-31"),
        ("before 1980", "1800-01-01", "1979-12-31"),
        ("before the eighties", "1800-01-01", "1979-12-31"),
        ("until 1980", "1800-01-01", "1980-12-31"),
        ("after 1980", "1981-01-01", "2199-12-31"),
        ("since 1980", "1980-01-01", "2199-12-31"),
        ("from 1980 on", "1980-01-01", "2199-12-31"),
        ("between 1990 and 1995", "1990-01-01", "1995-12-31"),
        ("from 1990 to 1995", "1990-01-01", "1995-12-31"),
        ("1990-1995", "1990-01-01", "1995-12-31"),
        ("since 1990 but before 1995", "1990-01-01", "1994-12-31"),
        ("from 1990 or 1995", "1990-01-01", "1995-12-31"),
        ("from today", "2024-05-15", "2024-05-15"),
        ("yesterday's", "2024-05-14", "2024-05-14"),
        ("this week", "2024-05-13", "2024-05-15"),
        ("last week", "2024-05-06", "2024-05-12"),
        ("this month", "2024-05-01", "2024-05-15"),
        ("last month", "2024-04-01", "2024-04-30"),
        ("this year", "2024-01-01", "2024-05-15"),
        ("last year", "2023-01-01", "2023-12-31"),
        ("in the last 3 days", "2024-05-12", "2024-05-15"),
        ("the past two weeks", "2024-05-01", "2024-05-15"),
    ],
)
def test_times(text, first, last):
    assert said(f"films {text}") == (first, last)


def test_decades_are_the_latest_that_there_are():
    assert said("from the twenties", newest_year=2024) == ("2020-01-01", "2029-12-31")


def test_times_that_are_not_wanted_and_numbers_that_are_no_years():
    wanted, unwanted = times.spans(Question("films, not from the nineties"), NOW, 2018)
    assert wanted is None
    assert [span.text for span in unwanted] == ["from 1990 to 1999"]
    for text in ("not older than 1980", "not before 1980", "no earlier than 1980"):
        _, unwanted = times.spans(Question(f"films {text}"), NOW, 2018)
        assert [span.text for span in unwanted] == ["before 1980"], text
    # Either year, but nothing in between.
    _, unwanted = times.spans(Question("films from 1990 or 1995"), NOW, 2018)
    assert [times.day_text(span.start) for span in unwanted] == ["1991-01-01"]
    for text in (
        "under 2000 pounds",
        "what to watch today or tonight",
        "item 12345",
        "12 angry men",
        "£1995",
        "1995 dollars",
    ):
        assert said(text) is None, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("under 20 pounds", Prices(high=20, open_high=True)),
        ("below £19.99", Prices(high=19.99, open_high=True)),
        ("for less than $1,250", Prices(high=1250, open_high=True)),
        ("up to 19,50 euros", Prices(high=19.5)),
        ("no more than 20", Prices(high=20)),
        ("over 5 quid", Prices(low=5, open_low=True)),
        ("at least €5", Prices(low=5)),
        ("between 5 and 10 pounds", Prices(5, 10)),
        ("from £5 to £10", Prices(5, 10)),
        ("5-10 euros", Prices(5, 10)),
        ("about 10 pounds", Prices(8, 12)),
        ("a 10 pound gift", Prices(high=10)),
        ("for 10 dollars", Prices(high=10)),
        ("under a pound", Prices(high=1, open_high=True)),
        ("for ten euros", Prices(high=10)),
        ("50 pence or less", Prices(high=0.5)),
        ("20 pounds or more", Prices(low=20)),
        ("over 5 pounds but under 10 pounds", Prices(5, 10, True, True)),
    ],
)
def test_prices(text, expected):
    assert prices.price(Question(f"a mug {text}"), has_prices=True) == expected


@pytest.mark.parametrize(
    "text",
    ["under 90 minutes", "for 2 people", "over 18 years old", "before 1990", "from 1990 to 1995", "about 10", "7 up"],
)
def test_numbers_that_are_no_prices(text):
    assert prices.price(Question(text), has_prices=True) is None
    assert prices.price(Question("under 20"), has_prices=False) is None


def test_ranges_of_prices_meet():
    assert Prices(1, 5).both(Prices(2, 9, True)) == Prices(2, 5, True, False)
    assert Prices(high=5).both(Prices(high=5, open_high=True)) == Prices(high=5, open_high=True)


def test_what_a_title_is_called():
    assert forms("Matrix, The (1999)") == (["the matrix", "matrix", "matrix the"], [])
    assert forms("City of Lost Children, The (Cité des enfants perdus, La) (1995)")[0] == [
        "the city of lost children",
        "city of lost children",
        "la cite des enfants perdus",
        "cite des enfants perdus",
        "city of lost children the cite des enfants perdus la",
    ]
    assert forms("Star Wars: Episode IV - A New Hope (1977)") == (["star wars episode iv a new hope"], ["star wars"])
    assert forms("Lord of the Rings: The Two Towers, The (2002)")[1] == ["the lord of the rings", "lord of the rings"]
    assert forms("Seven (a.k.a. Se7en) (1995)")[0] == ["seven", "se7en", "seven a k a se7en"]
    assert year_of("2001: A Space Odyssey (1968)") == 1968
    assert year_of("Blade Runner 2049") is None


def test_titles_are_found_although_misspelt_and_the_most_chosen_is_meant():
    titles = Titles(["Pulp Fiction (1994)", "Hamlet (1948)", "Hamlet (1996)", None], np.array([0, 1, 2, 9, 5.0]))
    assert titles.named(["hamlet"]) == [3, 2]
    assert titles.nearest(["pulp", "ficton"]) == 1
    assert titles.nearest(["pulp"]) is None
    titles.put(1, "Fargo (1996)", "Pulp Fiction (1994)")
    assert titles.nearest(["pulp", "ficton"]) is None
    assert titles.named(["fargo"]) == [1]


def test_one_letter_of_a_short_title_may_be_wrong():
    titles = Titles(["Matrix, The (1999)", "Alien (1979)"], np.array([0, 1, 1.0]))
    assert titles.nearest(["matrx"]) == titles.nearest(["mattrix"]) == 1
    assert titles.nearest(["allien"]) == 2
    assert titles.nearest(["matter"]) is titles.nearest(["aliment"]) is None


def test_the_one_word_before_a_colon_is_a_title_after_a_like(ask_service):
    served = ask_service()
    assert "likes" not in served.post("/ask", question="Shrek")["understood"]
    likes = served.post("/ask", question="something like shrek")["understood"]["likes"]
    assert likes == [{"item_id": "i003", "title": "Shrek: The Beginning (2001)"}]


def test_categories_by_plural_and_writing():
    names = Categories(["Comedy", "Sci-Fi", "Film-Noir", "Children's", "Home > Kitchen", "The"])
    for words, name in (
        (["comedies"], "Comedy"),
        (["scifi"], "Sci-Fi"),
        (["sci", "fi"], "Sci-Fi"),
        (["childrens"], "Children's"),
        (["kitchens"], "Home > Kitchen"),
    ):
        assert names.named(words) == (name,), words
    assert names.named(["the"]) == names.named(["film"]) == ()
    assert [stem(word) for word in ("stories", "boxes", "buses", "glass", "bus", "dramas")] == [
        "story",
        "box",
        "buse",
        "glass",
        "bus",
        "drama",
    ]


def test_every_part_counts_once():
    question = Question("Films UNDER £5, please")
    assert [t.word for t in question.tokens] == ["films", "under", "5", "please"]
    prices.price(question, True)
    assert [t.word for t in question.free_tokens] == ["films", "please"]
    assert prices.price(question, True) is None


def test_the_best_known_of_a_series_is_meant():
    titles = Titles(["Star Wars (1950)", "Star Wars: Episode IV (1977)", "Alien (1979)"], np.array([0, 1, 9, 5.0]))
    assert titles.meant(["star", "wars"]) == [2, 1]
