"""POST /ask over HTTP: every item of every answer is in the catalogue and holds every constraint."""

import gc
import re
import weakref

import jsonschema
import numpy as np
import pytest

from recops.serving.assistant.catalogue import catalogue_of
from tests.serving.assistant.conftest import ITEMS, THINGS
from tests.serving.assistant.questions import make

BY_ID = {
    item_id: dict(zip(ITEMS, values, strict=True))
    for item_id, *values in zip(ITEMS["item_id"], *ITEMS.values(), strict=True)
}
TITLES = ["Heat (1995)", "Matrix, The (1999)", "Toy Story (1995)"]


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize("encoder", [False, True])
def test_no_constraint_is_violated_in_500_questions(ask_service, encoder):
    served = ask_service(encoder=encoder)
    rng = np.random.default_rng(11 + encoder)
    num_items = num_empty = 0
    for _ in range(500):
        made = make(rng, THINGS, TITLES)
        answer = served.post("/ask", question=made.text, k=8)
        for item in answer["items"]:
            assert item["title"] == BY_ID[item["item_id"]]["title"]
            assert made.violations(BY_ID[item["item_id"]]) == [], (made.text, item, answer["understood"])
        # The answer names no other item than those of its list, which hold them too.
        named = [t for t in re.findall("“([^”]*)”", answer["answer"]) if re.search(r"\(\d{4}\)$", t)]
        assert set(named) <= {item["title"] for item in answer["items"]}, answer["answer"]
        holding = [item for item in BY_ID.values() if not made.violations(item)]
        # Nothing is held that was not asked for: where something qualifies, something is shown.
        assert len(answer["items"]) == min(8, len(holding)), (made.text, answer["understood"], len(holding))
        num_items += len(answer["items"])
        num_empty += not answer["items"]
    assert num_items > 1500
    assert 0 < num_empty < 250


def test_the_answer_is_as_described(ask_service):
    served = ask_service()
    schema = served.client.get("/openapi.json").json()["paths"]["/ask"]["post"]["responses"]["200"]
    answer = served.post("/ask", question="a comedy from 1995", user_id="u1", k=3)
    jsonschema.validate(answer, schema["content"]["application/json"]["schema"])
    assert answer["source"] == "model"
    assert answer["release"] == served.state.release.id
    assert all(item["reason"] for item in answer["items"])
    assert answer["phrased_by"] == "template"
    assert served.post("/ask", question="a comedy")["source"] == "fallback"


def test_reasons_are_facts(ask_service):
    served = ask_service()
    answer = served.post("/ask", question="something like Heat, in stock, under 30 pounds with a garden", k=5)
    rows = {item["item_id"]: item["reason"] for item in answer["items"]}
    assert rows
    for item_id, reason in rows.items():
        assert f"osts {BY_ID[item_id]['price']:g}" in reason
        assert "available" in reason
        words = f"{BY_ID[item_id]['title']} {BY_ID[item_id]['text']}".lower()
        assert ("“garden”" in reason) == ("garden" in words)


def test_nothing_fits_is_said_with_what_stands_in_the_way(ask_service):
    answer = ask_service().post("/ask", question="a comedy from 1901")
    assert answer["items"] == []
    assert "Nothing in the catalogue fits" in answer["answer"]
    num = sum("Comedy" in (item["categories"] or []) for item in BY_ID.values())
    assert f"Without the date there are {num} items" in answer["answer"]


def test_none_that_bears_a_liked_name_is_shown(ask_service):
    """'Star Trek' is taken for the series, although another film is called that and nothing more."""
    titles = [*ITEMS["title"][:3], "Star Trek: Generations (1994)", *ITEMS["title"][4:-1], "Star Trek (2009)"]
    served = ask_service({**ITEMS, "title": titles})
    shown = ids(served.post("/ask", question="something like Star Trek", k=300))
    assert not {"i003", "i239"} & set(shown)
    assert "i003" in ids(served.post("/ask", question="something like Star Trek (2009)", k=300))


def test_names_that_are_not_there_are_said(ask_service):
    answer = ask_service().post("/ask", question="something like Casablanca")
    assert "I know nothing called “Casablanca”" in answer["answer"]


def test_what_was_seen_and_refused_is_not_shown(ask_service):
    served = ask_service()
    title = BY_ID["i010"]["title"]
    assert served.post("/ask", question="Have you got " + title + "?")["items"][0]["item_id"] == "i010"
    assert "i010" not in ids(served.post("/ask", question="Have you got " + title + "?", user_id="u1", k=200))


def years(answer: dict) -> list[int]:
    return [int(item["title"][-5:-1]) for item in answer["items"]]


def test_the_oldest_and_the_cheapest_come_first(ask_service):
    served = ask_service()
    comedies = [item for item in BY_ID.values() if "Comedy" in item["categories"]]
    dated = sorted(int(item["title"][-5:-1]) for item in comedies if item["title"].endswith(")"))
    assert years(served.post("/ask", question="what is the oldest comedy you have?", k=3)) == dated[:3]
    assert years(served.post("/ask", question="the newest comedies", k=3)) == dated[:-4:-1]
    # For a user too, whose taste then decides among equals alone; what has no date comes last.
    answer = served.post("/ask", question="the oldest comedy", user_id="u1", k=200)
    unseen = [item for item in comedies if item["item_id"] != "i010"]
    told = [int(item["title"][-5:-1]) if item["title"].endswith(")") else 9999 for item in answer["items"]]
    assert len(told) == len(unseen) and told == sorted(told)
    prices = sorted(item["price"] for item in comedies if item["price"] is not None)
    for question, expected in [("the cheapest comedy", prices[:3]), ("the most expensive comedies", prices[:-4:-1])]:
        answer = served.post("/ask", question=question, k=3)
        assert [BY_ID[item_id]["price"] for item_id in ids(answer)] == expected


def test_as_many_as_were_asked_for(ask_service):
    served = ask_service()
    assert len(served.post("/ask", question="three comedies", k=8)["items"]) == 3
    assert len(served.post("/ask", question="no more than 2 films from 1990 on", k=8)["items"]) == 2
    assert len(served.post("/ask", question="20 comedies", k=8)["items"]) == 8
    assert len(served.post("/ask", question="three golden, winter films", k=8)["items"]) == 8
    assert len(served.post("/ask", question="three golden winter films", k=8)["items"]) == 3
    assert len(served.post("/ask", question="two hours of golden films", k=8)["items"]) == 8
    assert len(served.post("/ask", question="comedies of at least 3 rivers", k=8)["items"]) == 8


def test_older_than_an_item_that_is_named(ask_service):
    answer = ask_service().post("/ask", question="comedies older than Heat", k=20)
    assert answer["understood"]["dates"] == "before 1995"
    assert len(ids(answer)) == 20
    assert all(year < 1995 for year in years(answer))


def test_newer_and_cheaper_than_the_item_that_is_liked(ask_service):
    served = ask_service()
    assert served.post("/ask", question="something like Heat but newer")["understood"]["dates"] == "after 1995"
    assert served.post("/ask", question="like Heat but cheaper")["understood"]["price"] == "under 12"


def test_an_item_of_one_common_word_may_be_asked_for(ask_service):
    columns = {name: [*values] for name, values in ITEMS.items()}
    columns["title"][30] = "Up (2009)"
    served = ask_service(items=columns)
    assert served.post("/ask", question="Have you got Up?")["items"][0]["item_id"] == "i030"
    assert "likes" not in served.post("/ask", question="what have you got up there?")["understood"]


def test_a_year_in_brackets_behind_a_quoted_title_is_of_it(ask_service):
    told = ask_service().post("/ask", question='something like "Heat" (1995)')["understood"]
    assert list(told) == ["likes"]
    told = ask_service().post("/ask", question="something like Heat 1995")["understood"]
    assert list(told) == ["likes"]
    assert ask_service().post("/ask", question="something like Heat, from 1995")["understood"]["dates"] == "from 1995"


def test_what_is_not_found_is_said(ask_service):
    served = ask_service(encoder=True)
    assert "nothing for “asdf qwer”" in served.post("/ask", question="asdf qwer")["answer"]
    assert (
        "nothing for “asdf qwer” among what you asked for (Comedy)"
        in (served.post("/ask", question="a comedy with asdf qwer")["answer"])
    )
    assert "I found nothing" not in served.post("/ask", question="a comedy with a lantern")["answer"]


def test_the_items_that_were_understood_are_told(ask_service):
    told = ask_service().post("/ask", question="something like Heat but not like Toy Story")["understood"]
    assert told["likes"] == [{"item_id": "i000", "title": "Heat (1995)"}]
    assert told["dislikes"] == [{"item_id": "i002", "title": "Toy Story (1995)"}]


def test_a_word_for_all_items_may_say_what_of(ask_service):
    columns = {name: [*values] for name, values in ITEMS.items()}
    columns["title"][20] = "The Book of Music (1999)"
    served = ask_service(items=columns)
    assert served.post("/ask", question="a film about music")["items"][0]["item_id"] == "i020"
    assert served.post("/ask", question="I like music, what is there?")["understood"] == {}


class TestConversation:
    def turns(self, served, *questions, **more):
        """Asks one after the other, as a client does that brings back what was shown."""
        conversation, answers = [], []
        for question in questions:
            answer = served.post("/ask", question=question, conversation=conversation, **more)
            answers.append(answer)
            conversation = [*conversation, {"question": question, "items": ids(answer)}]
        return answers

    def test_cheaper_keeps_the_rest(self, ask_service):
        first, second = self.turns(ask_service(), "a comedy under 30 pounds", "cheaper", k=3)
        least = min(BY_ID[i]["price"] for i in ids(first))
        assert ids(second)
        for item_id in ids(second):
            assert "Comedy" in BY_ID[item_id]["categories"]
            assert BY_ID[item_id]["price"] < least

    def test_only_those_from_a_year(self, ask_service):
        _, second = self.turns(ask_service(), "a comedy", "only the ones from 1995", k=5)
        assert set(ids(second)) >= {"i002", "i004"}
        for item_id in ids(second):
            assert "Comedy" in BY_ID[item_id]["categories"]
            assert BY_ID[item_id]["title"].endswith("(1995)")

    def test_more_like_the_second(self, ask_service):
        first, second = self.turns(ask_service(), "dramas since 1970", "more like the second", k=3)
        second_row = int(ids(first)[1][1:])
        # The model links each item to the ten after it.
        best = min(int(i[1:]) for i in ids(second))
        assert not set(ids(second)) & set(ids(first))
        assert second_row < best <= second_row + 10 or "those who chose" in second["items"][0]["reason"]
        assert all("Drama" in BY_ID[i]["categories"] for i in ids(second))

    def test_the_second_is_no_title(self, ask_service):
        columns = {name: [*values] for name, values in ITEMS.items()}
        columns["title"][30] = "Seconds (1966)"
        _, second = self.turns(ask_service(items=columns), "dramas since 1970", "more like the second", k=3)
        assert "i030" not in [item["item_id"] for item in second["understood"]["likes"]]

    def test_the_first_and_the_third(self, ask_service):
        columns = {name: [*values] for name, values in ITEMS.items()}
        columns["title"][30] = "First Kid (1996)"
        first, second = self.turns(ask_service(items=columns), "dramas", "like the first and the third", k=3)
        assert [item["item_id"] for item in second["understood"]["likes"]] == [ids(first)[0], ids(first)[2]]

    def test_what_was_not_shown_cannot_be_pointed_at(self, ask_service):
        served = ask_service()
        *_, last = self.turns(served, "dramas", "more like the tenth", k=3)
        assert last["answer"].startswith("Before, 3 items were shown.")
        answer = served.post("/ask", question="more like the second")
        assert "give the items shown before in `conversation`" in answer["answer"]
        # Of something else it is no place in a list.
        *_, last = self.turns(served, "dramas", "a drama of the second world orchard", k=3)
        assert "likes" not in last["understood"]

    @pytest.mark.parametrize(
        "question",
        ["I have seen all of these", "none of these", "not any of those", "I already know them", "not these"],
    )
    def test_what_is_turned_down_is_shown_no_more(self, ask_service, question):
        first, second = self.turns(ask_service(), "a comedy from 1960 on", question, k=4)
        assert len(ids(second)) == 4
        assert not set(ids(first)) & set(ids(second))
        assert all("Comedy" in BY_ID[i]["categories"] for i in ids(second))

    def test_older_and_newer_than_a_whole_year(self, ask_service):
        served = ask_service()
        _, older = self.turns(served, "films from 1995", "and older ones", k=3)
        _, newer = self.turns(served, "films from 1995", "newer ones", k=3)
        assert (older["understood"]["dates"], newer["understood"]["dates"]) == ("before 1995", "after 1995")
        assert all(year < 1995 for year in years(older))
        assert all(year > 1995 for year in years(newer))
        assert len(ids(older)) == len(ids(newer)) == 3
        # What is left of a longer time is within it.
        shown = [{"question": "films from the nineties", "items": ["i000"]}]
        answer = served.post("/ask", question="older ones", conversation=shown)
        assert all(1990 <= year < 1995 for year in years(answer))

    def test_or_another_category(self, ask_service):
        _, second = self.turns(ask_service(), "a comedy since 1990", "or horror", k=300)
        assert second["understood"]["categories"] == [["Comedy", "Horror"]]
        _, second = self.turns(ask_service(), "a comedy since 1990", "and horror", k=300)
        assert second["understood"]["categories"] == [["Comedy"], ["Horror"]]

    def test_why_the_second(self, ask_service):
        served = ask_service()
        for question in ("why the second?", "why did you show me the second one?"):
            first, second = self.turns(served, "a comedy from 1995", question, k=2)
            assert ids(second) == ids(first)[1:], question
        _, second = self.turns(served, "a comedy from 1995", "why not horror?", k=2)
        assert second["understood"]["not_categories"] == ["Horror"]

    def test_a_question_for_reasons_is_no_new_subject(self, ask_service):
        *_, third, last = self.turns(
            ask_service(), "a comedy since 1970", "why the first?", "why the second?", "another three", k=4
        )
        assert len(third["items"]) == 1
        assert last["understood"] == {"categories": [["Comedy"]], "dates": "since 1970", "count": 3}

    def test_what_begins_with_a_preposition_goes_on(self, ask_service):
        _, second = self.turns(ask_service(), "a comedy", "with a violin", k=3)
        assert second["understood"] == {"text": "violin", "categories": [["Comedy"]]}

    def test_what_nothing_holds_stays_asked_for(self, ask_service):
        *_, last = self.turns(ask_service(), "a comedy since 1995 but before 1990", "another", k=3)
        assert last["understood"]["dates"] == "since 1995 and before 1990"
        assert last["items"] == []

    def test_cheaper_where_nothing_is_known_of_prices(self, ask_service):
        columns = {**ITEMS, "price": [None] * len(ITEMS["price"])}
        *_, last = self.turns(ask_service(items=columns), "a comedy", "cheaper", k=2)
        assert last["answer"].startswith("This catalogue has no prices.")

    def test_a_leaning_that_is_a_category_already_is_told_once(self, ask_service):
        _, second = self.turns(ask_service(encoder=True), "a comedy", "funnier", k=3)
        assert "leanings" not in second["understood"]
        assert "nothing for" not in second["answer"]

    def test_others(self, ask_service):
        first, second, third = self.turns(ask_service(), "a comedy", "show me others", "and others", k=4)
        assert len({*ids(first), *ids(second), *ids(third)}) == 12
        assert all("Comedy" in BY_ID[i]["categories"] for i in ids(third))

    def test_a_new_question_stands_for_itself(self, ask_service):
        _, second = self.turns(
            ask_service(), "a comedy under 5 pounds", "Can you recommend a horror film with a violin?"
        )
        assert second["understood"]["categories"] == [["Horror"]]
        assert "price" not in second["understood"]

    def test_constraints_add_up_and_are_renewed(self, ask_service):
        *_, last = self.turns(
            ask_service(), "a comedy under 20 pounds", "but not horror", "and since 1980", "under 30 pounds then"
        )
        told = last["understood"]
        assert told["not_categories"] == ["Horror"]
        assert (told["dates"], told["price"]) == ("since 1980", "under 30")

    def test_why(self, ask_service):
        served = ask_service()
        first, second = self.turns(served, "a comedy from 1995", "why did you show me this?", user_id="u1", k=2)
        assert ids(second) == ids(first)
        assert all("Comedy; from 1995" in item["reason"] for item in second["items"])
        assert served.post("/ask", question="why did you show me Heat?", user_id="u1")["items"][0]["item_id"] == "i000"
        answer = served.post("/ask", question="why did you show me this?", user_id="u1")
        assert answer["items"] == []
        assert "conversation" in answer["answer"]

    def test_unknown_items_of_a_conversation_are_ignored(self, ask_service):
        turn = {"question": "a comedy", "items": ["gone", "i002"]}
        answer = ask_service().post("/ask", question="more like the first", conversation=[turn])
        assert "i002" not in ids(answer)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("neither comedy nor horror", {"not_categories": ["Comedy", "Horror"]}),
        ("either comedy or horror", {"categories": [["Comedy", "Horror"]]}),
        ("hello! already another drama please, thanks", {"categories": [["Drama"]]}),
        ("dramas from 1995 or from 1990", {"categories": [["Drama"]], "dates": "from 1995 or from 1990"}),
        ("a drama that is less violent", {"categories": [["Drama"]], "less": ["violent"]}),
        ("a drama that is not too violent", {"categories": [["Drama"]], "less": ["violent"]}),
        ("everything but horror", {"not_categories": ["Horror"]}),
        ("nothing but horror", {"categories": [["Horror"]]}),
        ("no films from before 1980", {"not_dates": ["before 1980"]}),
        ("dramas, but nothing made from 1980 on", {"categories": [["Drama"]], "not_dates": ["since 1980"]}),
        ("dramas from 1994 and 1996", {"categories": [["Drama"]], "dates": "from 1994 or from 1996"}),
        ("a drama without love", {"categories": [["Drama"]], "without": ["love"]}),
        ("a drama that isn't about love", {"categories": [["Drama"]], "without": ["love"]}),
        ("dramas from the last century", {"categories": [["Drama"]], "dates": "from 1900 to 1999"}),
        ("a drama of the late nineteenth century", {"categories": [["Drama"]], "dates": "from 1867 to 1899"}),
    ],
)
def test_what_is_understood(ask_service, question, told):
    assert ask_service().post("/ask", question=question, k=300)["understood"] == told


def test_common_words_are_titles_after_a_like_alone(ask_service):
    columns = {name: [*values] for name, values in ITEMS.items()}
    columns["title"][30] = "More (1998)"
    served = ask_service(items=columns)
    assert "i030" in ids(served.post("/ask", question="a film, no more", k=300))
    for question in ("something like more", "something but not More"):
        assert "i030" not in ids(served.post("/ask", question=question, k=300)), question


def test_a_limit_that_cannot_be_checked_is_said(ask_service):
    answer = ask_service().post("/ask", question="dramas under 90 minutes")
    assert answer["answer"].startswith("“under 90 minutes” cannot be checked here and was left out.")
    assert answer["understood"] == {"categories": [["Drama"]]}


def test_what_was_seen_is_left_out_and_may_be_liked(ask_service):
    served = ask_service()
    assert ids(served.post("/ask", question="I have seen Heat", k=300)).count("i000") == 0
    answer = served.post("/ask", question="I have seen Heat, what else is like it?", k=300)
    assert [item["item_id"] for item in answer["understood"]["likes"]] == ["i000"]
    assert "i000" not in ids(answer)
    # Not what a sentence says in passing.
    assert served.post("/ask", question="I have gardens", k=300)["understood"] == {"text": "gardens"}


def test_an_answer_repeats_no_long_question(ask_service):
    answer = ask_service().post("/ask", question="lantern " + "ﷺ" * 1900)
    assert len(answer["answer"]) < 500


def test_an_item_without_a_title_is_not_near_to_everything(ask_service):
    """Of its categories alone the vector is nearer to any short question than those of titles."""
    columns = {name: [*values] for name, values in ITEMS.items()}
    columns["title"][7], columns["text"][7], columns["categories"][7] = None, None, ["Comedy"]
    answer = ask_service(items=columns, encoder=True).post("/ask", question="something funnier", k=3)
    assert "i007" not in ids(answer)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": " \n "}, "question"),
        ({"question": "?!"}, "question"),
        ({"question": "a\x00b"}, "question"),
        ({"question": "x" * 100_000}, "question"),
        ({"question": 5}, "question"),
        ({"question": "a comedy", "k": 0}, "k"),
        ({"question": "a comedy", "language": "de"}, "language"),
        ({"question": "a comedy", "conversation": [{"question": "x"}]}, "conversation[0].items"),
        ({"question": "a comedy", "conversation": [{"question": "x", "items": []}] * 21}, "conversation"),
    ],
)
def test_wrong_input(ask_service, body, field):
    answer = ask_service().client.post("/ask", json=body)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


@pytest.mark.parametrize(
    "question",
    [
        "under",
        "1",
        "not",
        "like",
        "something like",
        "but not",
        'a "',
        "( ) x",
        "😀 a film 😀",
        'a * OR b NEAR(c) " AND title:x',
        "between 5 and",
        "from the 90s or the 80s or 1990-1995",
        "ﬁlms ＵＮＤＥＲ 10 pounds",
        "İstanbul ǅ ß",
        "no no no no not not",
        "the " * 500,
        "like the second",
        "9999999999999999999999 pounds",
        "in the last 999 years",
        "\u202e \x7f x",
    ],
)
@pytest.mark.parametrize("encoder", [False, True])
def test_odd_questions_have_an_answer(ask_service, question, encoder):
    served = ask_service(encoder=encoder)
    assert served.client.post("/ask", json={"question": question, "k": 300}).status_code == 200


def test_half_a_character_is_no_failure(ask_service):
    body = b'{"question": "a comedy \\ud83d"}'
    answer = ask_service().client.post("/ask", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400)


def test_an_unknown_user_and_an_unknown_history(ask_service):
    served = ask_service()
    assert served.post("/ask", question="a comedy", user_id="nobody")["source"] == "fallback"
    assert served.post("/ask", question="a comedy", history=["gone"])["source"] == "fallback"
    assert served.post("/ask", question="a comedy", history=["i010"])["source"] == "cold-start"


def test_a_bundle_without_words_or_encoder_answers_with_what_there_is(ask_service):
    served = ask_service(words=False)
    answer = served.post("/ask", question="a comedy with a violin but without a river, from the nineties", k=5)
    assert answer["items"]
    assert answer["retrieved_by"] == ["model"]
    for item in answer["items"]:
        assert "River" not in item["title"]
        assert 1990 <= int(item["title"][-5:-1]) <= 1999


def test_items_told_to_the_service_are_found(ask_service):
    served = ask_service()
    served.post(
        "/items",
        items=[{"item_id": "i050", "title": "The Zeppelin Cookbook (2019)", "price": 4.5, "text": "sourdough"}],
    )
    answer = served.post("/ask", question="something about sourdough under 5 pounds", k=1)
    assert ids(answer) == ["i050"]
    assert "“sourdough”" in answer["items"][0]["reason"]
    assert ids(served.post("/ask", question="Have you got The Zeppelin Cookbook?", k=1)) == ["i050"]
    served.post("/items", items=[{"item_id": "i050", "price": 50.0}])
    assert "i050" not in ids(served.post("/ask", question="something about sourdough under 5 pounds", k=200))


def test_dates_of_items_are_counted_from_the_newest_where_that_is_old(ask_service):
    days = {"n1": "2021-03-10T08:00:00", "n2": "2021-03-08T00:00:00", "n3": "2021-03-07T23:59:59", "n4": None}
    items = {
        "item_id": list(days),
        "title": [f"Asylum law, part {i}" for i in range(4)],
        "text": ["asylum"] * 4,
        "categories": [["Politics"]] * 4,
        "price": [None] * 4,
        "available": [None] * 4,
        "published_at": list(days.values()),
    }
    served = ask_service(items)
    answer = served.post("/ask", question="what happened in the news about asylum this week?")
    assert set(ids(answer)) == {"n1", "n2"}  # from Monday, the 8th, on
    assert "The newest item here is of 2021-03-10" in answer["answer"]
    assert {item["reason"][:15] for item in answer["items"]} == {"From 2021-03-10", "From 2021-03-08"}
    answer = served.post("/ask", question="news from 2021 that is in stock under 5 pounds")
    assert answer["items"] == []
    assert "This catalogue has no prices. This catalogue does not say what is available." in answer["answer"]
    assert served.post("/ask", question="the latest news")["items"][0]["item_id"] == "n1"


def test_all_that_fits_was_seen(ask_service):
    title = BY_ID["i010"]["title"]
    shown = [{"question": "x", "items": ["i010"]}]
    answer = ask_service().post("/ask", question="which of these is it?", conversation=shown, user_id="u1")
    assert (answer["items"], title in answer["answer"]) == ([], False)
    assert "already" in answer["answer"]


def test_a_question_that_waits_too_long_is_told(ask_service):
    served = ask_service(settings={"timeout_s": 0.3})
    assert served.post("/ask", question="a comedy")["items"]
    catalogue = catalogue_of(served.state.release)
    with catalogue.used_for(served.state.release):
        answer = served.client.post("/ask", json={"question": "a comedy"})
        assert (answer.status_code, answer.json()["message"]) == (504, "no answer within 0.3 s")
    assert served.post("/ask", question="a comedy")["items"]


def test_a_release_that_is_replaced_is_forgotten(ask_service):
    served = ask_service()
    served.post("/ask", question="a comedy")
    release = weakref.ref(served.state.release)
    served.state._served, served.state._slots = None, {}
    gc.unfreeze()  # as after the load of another
    gc.collect()
    assert release() is None


@pytest.mark.parametrize(
    "piece", ["like qwertyuio ", "not zzz or ", "from 1990 ", '"aaa" ', "under 5 pounds ", "why the ", "a" * 50]
)
def test_long_questions_are_answered(ask_service, piece):
    question = (piece * 2000)[:1999]
    assert ask_service().client.post("/ask", json={"question": question}).status_code == 200


def test_nothing_is_kept_unless_asked(ask_service):
    served = ask_service()
    kept = served.post("/ask", question="a comedy", user_id="u1", k=2, log=True)
    dropped = served.post("/ask", question="a drama", user_id="u1", k=2)
    served.state.answers.close()
    assert served.state.store.answer(dropped["request_id"]) is None
    logged = served.state.store.answer(kept["request_id"])
    assert [item["item_id"] for item in logged["items"]] == ids(kept)
    assert "comedy" not in str(logged)
