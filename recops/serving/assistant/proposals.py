"""Lets a language model propose what a question asks for; the rules decide what becomes of it.

In: the question, and the wishes that rules made of it. Out: the wishes with what was proposed as leanings: words to
look for, categories that the catalogue has, titles that the question holds. Hard constraints are the rules' alone:
nothing is added to them and nothing taken away.
"""

import json
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recops.serving.assistant import english
from recops.serving.assistant.catalogue import Catalogue
from recops.serving.assistant.language_model import Message
from recops.serving.assistant.titles import words_of
from recops.serving.assistant.wishes import Wishes

INSTRUCTIONS = (
    'Read the question and answer with JSON only: {"words": [words to search a catalogue for], "categories": [kinds of '
    'item wanted], "titles": [titles of items it says it likes]}. Empty lists where it says nothing of that.'
)


class Proposal(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    words: list[str] = Field([], max_length=16)
    categories: list[str] = Field([], max_length=16)
    titles: list[str] = Field([], max_length=8)


def messages(question: str) -> list[Message]:
    return [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": json.dumps(question, ensure_ascii=False)},
    ]


def read(text: str) -> Proposal | None:
    """The JSON object in what a model wrote; None where there is none of this shape."""
    start, end = text.find("{"), text.rfind("}")
    try:
        return Proposal.model_validate_json(text[start : end + 1]) if 0 <= start < end else None
    except ValidationError:
        return None


def taken_up(wishes: Wishes, proposal: Proposal, catalogue: Catalogue, question: str) -> Wishes:
    """`wishes` with what of the proposal the catalogue knows; a title counts where it stands in the question."""
    asked_words = f" {' '.join(words_of(question))} "
    terms = [word for text in proposal.words for word in words_of(text[:100]) if word not in english.FILLER]
    unwanted = {word for phrase in wishes.without for word in words_of(phrase)}
    more = [word for word in dict.fromkeys(terms) if word not in wishes.terms and word not in unwanted][:8]
    asked = {name for group in wishes.categories for name in group} | set(wishes.not_categories)
    names = [name for text in proposal.categories for name in catalogue.categories.named(words_of(text[:200]))]
    titles = [words for text in proposal.titles if (words := words_of(text[:300]))]
    rows = [
        row for words in titles if f" {' '.join(words)} " in asked_words for row in catalogue.titles.named(words)[:1]
    ]
    likes = [row for row in rows if row not in wishes.excluded and row not in wishes.dislikes]
    return replace(
        wishes,
        text=" ".join([wishes.text, *more]).strip(),
        terms=(*wishes.terms, *more),
        leanings=tuple(dict.fromkeys((*wishes.leanings, *(name for name in names if name not in asked)))),
        likes=tuple(dict.fromkeys((*wishes.likes, *likes))),
    )
