"""What moves items up: words, meaning, likeness and the user; and what is asked for in words alone."""

from types import SimpleNamespace

import numpy as np

from recops.calibration import Fusion
from recops.links import Links
from recops.nearest import Nearness
from recops.runtime import Scorer
from recops.serving.assistant.catalogue import Catalogue
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


def test_links_of_all_members_count_alike_and_those_of_content_do_not(ask_service):
    """What goes with an item is asked of every member that knows who chose what, each as a share of its strongest."""

    def links(weights: dict[tuple[int, int], float]) -> Links:
        rows = [[pair for pair in weights if pair[0] == row] for row in range(6)]
        return Links(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.array([to for some in rows for _, to in some], np.int32),
            np.array([weights[pair] for some in rows for pair in some], np.float32),
        )

    strong, weak = links({(1, 2): 8.0, (1, 3): 4.0}), links({(1, 3): 0.1, (1, 4): 0.05})
    of_content = Scorer(5, links=links({(1, 5): 1.0}), nearness=Nearness(1, 1.0, np.zeros(1, np.float32), (1,)))
    catalogue = SimpleNamespace(release=SimpleNamespace(bundle=SimpleNamespace(scorer=Scorer(5, links=strong))))
    rows = np.array([2, 3, 4, 5])
    np.testing.assert_allclose(Catalogue.linked(catalogue, np.array([1]), rows), [[1, 0.5, 0, 0]])
    members = (of_content, Scorer(5, links=strong), Scorer(5, links=weak))
    catalogue.release.bundle.scorer = Scorer(5, members=members, fusion=Fusion(np.ones((1, 3), np.float32)))
    np.testing.assert_allclose(Catalogue.linked(catalogue, np.array([1]), rows), [[0.5, 0.75, 0.25, 0]], rtol=1e-6)
