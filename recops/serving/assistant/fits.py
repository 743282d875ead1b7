"""Why an item answers a question: a sentence made of facts, for each item of an answer.

In: the wishes, the ranking, the account of the user's scores. Out: texts. Each part names what was looked up:
values of the item that hold the constraints, words found in it, the named item it is near to, the history item without
which the model would score it lower. Nothing here comes from a language model.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from recops.attribution import Account
from recops.serving.assistant import english
from recops.serving.assistant.catalogue import Catalogue
from recops.serving.assistant.ranking import Ranking
from recops.serving.assistant.wishes import Wishes
from recops.serving.reasons import Reasons
from recops.serving.release import NO_TIME

MOST_EXPLAINED = 10  # items of a list whose part of the history is looked for
MOST_WORDS = 8  # of the question that are looked for in each item
NEAR = 0.35  # cosine of content from which it is worth naming


def reasons(
    catalogue: Catalogue, wishes: Wishes, ranking: Ranking, account: Account | None, first: int = MOST_EXPLAINED
) -> list[str]:
    """A sentence for each row of `ranking`; parts of it are separated by semicolons."""
    rows = [int(row) for row in ranking.rows]
    holding = [_holds(catalogue, wishes, row) for row in rows]
    liked = _liked(catalogue, wishes, ranking)
    found_words = _words(catalogue, wishes, rows)
    content = ranking.said("content")
    own = of_user(catalogue, account, rows[:first]) if account is not None else []
    texts = []
    for place, row in enumerate(rows):
        parts = [*holding[place], *liked[place], *found_words[place]]
        parts += [f"{name}, which you lean to" for name in wishes.leanings if name in _categories(catalogue, row)][:1]
        if wishes.text and content is not None and content[place] >= NEAR and not found_words[place]:
            parts.append(f"what is said of it is near to “{wishes.said}”")
        if place < len(own):
            parts += own[place][:1]
        texts.append(_sentence(parts or ["it comes next among what fits"]))
    return texts


def of_user(catalogue: Catalogue, account: Account, rows: Sequence[int]) -> list[list[str]]:
    """For each row what the served model was moved by, strongest first."""
    if not rows:
        return []
    found = Reasons(catalogue.release, account, np.array(rows, np.int64))
    return [[_lower(reason["text"]) for reason in found.of(place)] for place in range(len(rows))]


def meets_text(catalogue: Catalogue, wishes: Wishes, ranking: Ranking) -> bool:
    """Whether any item of `ranking` has to do with the words asked for: has one, is near to them by content, or is of a
    category that they lean to. Without words but such as 'funnier', or where nothing can tell, yes."""
    if all(english.COMPARATIVE.match(term) for term in wishes.terms) or not (
        catalogue.has_words or ranking.said("content") is not None
    ):
        return True
    content = ranking.said("content")
    rows = ranking.rows.tolist()
    is_near = content is not None and bool((content >= NEAR).any())
    leans = any(name in wishes.leanings for row in rows for name in _categories(catalogue, row))
    return is_near or leans or any(_words(catalogue, wishes, rows))


def holds(catalogue: Catalogue, wishes: Wishes, row: int) -> str:
    """The values of an item that hold the constraints, as a sentence; empty without constraints."""
    parts = _holds(catalogue, wishes, row)
    return _sentence(parts) if parts else ""


def _holds(catalogue: Catalogue, wishes: Wishes, row: int) -> list[str]:
    parts = []
    own = _categories(catalogue, row)
    if asked := [name for group in wishes.categories for name in group if name in own]:
        parts.append(" and ".join(dict.fromkeys(asked)))
    if wishes.dates is not None or wishes.not_dates or (wishes.newest and catalogue.starts[row] != NO_TIME):
        parts.append(f"from {when(catalogue, row)}")
    if wishes.price is not None or (wishes.cheapest and not np.isnan(catalogue.prices[row])):
        parts.append(f"costs {catalogue.prices[row]:.10g}")
    return [*parts, *wishes.yes_or_no()]


def when(catalogue: Catalogue, row: int) -> str:
    """The day an item appeared, or the year where no more is known."""
    published = int(catalogue.release.columns.published_at[row])
    if published == NO_TIME:
        return str(catalogue.year(row))
    return (np.datetime64(published, "us").astype("datetime64[D]")).item().isoformat()


def _categories(catalogue: Catalogue, row: int) -> list[str]:
    return catalogue.release.bundle.items["categories"][row - 1] or []


def title(catalogue: Catalogue, row: int) -> str:
    """The title of an item on one line, else its id."""
    shown = catalogue.release.titles[row - 1] or catalogue.release.ids[row - 1]
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


def _liked(catalogue: Catalogue, wishes: Wishes, ranking: Ranking) -> list[list[str]]:
    """The liked item that each row is nearest to, where it is near to any: by the model's links, else by content."""
    rows, likes = ranking.rows, np.array(wishes.likes, np.int64)
    found: list[list[str]] = [[] for _ in rows]
    if not len(likes):
        return found
    links = catalogue.linked(likes, rows)
    vectors = catalogue.vectors
    near = (
        None if vectors is None else np.stack([catalogue.cosines(vectors[i].astype(np.float32), rows) for i in likes])
    )
    for place, row in enumerate(rows):
        if row in wishes.likes:
            found[place] = ["you named it"]
        elif links is not None and links[:, place].max() > 0:
            found[place] = [f"those who chose {title(catalogue, likes[links[:, place].argmax()])} chose it too"]
        elif near is not None and near[:, place].max() >= NEAR:
            found[place] = [f"like {title(catalogue, likes[near[:, place].argmax()])} by what is said of both"]
    return found


def _words(catalogue: Catalogue, wishes: Wishes, rows: list[int]) -> list[list[str]]:
    """The words of the question that stand in each row."""
    if not catalogue.has_words or not rows:
        return [[] for _ in rows]
    having = {term: catalogue.which_have(term, rows) for term in wishes.terms[:MOST_WORDS]}
    named = [[f"“{term}”" for term, found in having.items() if row in found] for row in rows]
    return [[f"has the word{'s' * (len(words) > 1)} {', '.join(words)}"] if words else [] for words in named]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def today_us() -> int:
    return round(datetime.now(UTC).timestamp() * 1_000_000)
