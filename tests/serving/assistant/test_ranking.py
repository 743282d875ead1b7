"""What moves items up: words, meaning, likeness and the user; and what is asked for in words alone."""

from tests.serving.assistant.conftest import ITEMS

ROWS = {item_id: row for row, item_id in enumerate(ITEMS["item_id"])}


def texts(answer: dict) -> list[str]:
    return [" ".join([i["title"], ITEMS["text"][ROWS[i["item_id"]]] or ""]).lower() for i in answer["items"]]


def test_words_of_the_question_come_first(ask_service):
    answer = ask_service().post("/ask", question="something with an orchard and a violin", k=5)
    assert answer["retrieved_by"] == ["words", "model"]
    assert all("orchard" in text and "violin" in text for text in texts(answer)[:3])
    assert "“orchard”, “violin”" in answer["items"][0]["reason"]


def test_meaning_is_told_by_the_encoder(ask_service):
    served = ask_service(encoder=True)
    answer = served.post("/ask", question="something scary", k=5)
    assert answer["understood"]["categories"] == [["Horror"]]
    answer = served.post("/ask", question="something like Heat but funnier", k=5)
    assert answer["understood"]["leanings"] == ["Comedy"]
    assert "categories" not in answer["understood"]
    assert set(answer["retrieved_by"]) >= {"content", "likeness", "links", "leanings", "model"}
    # Links lead from Heat to the ten after it.
    assert {ROWS[item["item_id"]] for item in answer["items"][:3]} <= set(range(1, 11))


def test_the_history_speaks_where_nothing_else_does(ask_service):
    answer = ask_service().post("/ask", question="what do you recommend?", user_id="u1", k=3)
    assert [ROWS[item["item_id"]] for item in answer["items"]] == [11, 12, 13]
    assert f"ecause of {ITEMS['title'][10]} in your history" in answer["items"][0]["reason"]


def test_dislikes_push_away(ask_service):
    served = ask_service()
    near, nearest = ({f"i{row:03d}" for row in range(1, last)} for last in (11, 4))
    liked = served.post("/ask", question="something like Heat", k=5)["items"]
    hated = served.post("/ask", question="I hated Heat. Show me something else", k=100)["items"]
    assert {item["item_id"] for item in liked} <= near
    assert "i000" not in [item["item_id"] for item in hated]
    assert not {item["item_id"] for item in hated} & nearest


def test_cheap_and_oldest(ask_service):
    served = ask_service()
    cheap = served.post("/ask", question="a cheap horror film", k=5)["items"]
    usual = served.post("/ask", question="a horror film", k=5)["items"]

    def mean(items):
        known = [ITEMS["price"][ROWS[item["item_id"]]] for item in items]
        return sum(p for p in known if p is not None) / len(known)

    assert mean(cheap) < mean(usual)
    assert "osts" in cheap[0]["reason"]
