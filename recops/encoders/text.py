"""`text`: sentences to vectors, from an item's title, text and categories.

Sentence-BERT (Reimers, Gurevych, 2019): a small transformer whose token vectors are averaged. It runs on ONNX Runtime
from `model.onnx` and `tokenizer.json`; or it is a server that speaks OpenAI's protocol of embeddings (`url`).

The same text has the same vector to the last bit, whatever it was encoded with: a batch holds texts of one length, so
that nothing is padded, and never a single text, which other routines would add up in another order.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from recops.encoders.content.files import open_without_redirects
from recops.encoders.content.item_encoder import NETWORK, ItemEncoder, categories_of, normalised
from recops.encoders.content.item_encoder import Options as EncoderOptions
from recops.errors import CallError
from recops.protocols import Item
from recops.runtime import OnnxNetwork

TOKENIZER = "tokenizer.json"
MAX_CHARACTERS = 16_384  # of one text; models read a few hundred words
TOKENS_AT_ONCE = 1024
TEXTS_A_CALL, TRIES = 64, 4
RETRIED = {408, 429, 500, 502, 503, 504}
REFUSED_TEXT = {400, 413, 422}
HARMLESS = "text"  # that every model takes
MAX_ANSWER_BYTES = 64 << 20


class RefusedTextError(CallError):
    """The server takes no request like this one: most often, a text is too long for its model."""


class Text(ItemEncoder):
    class Options(EncoderOptions):
        model: str | None = Field(
            None, description="a sentence-transformers folder; with url the model's name there; null: MiniLM"
        )
        url: str | None = Field(None, description="OpenAI-compatible server, such as http://127.0.0.1:8000/v1")
        key_env: str | None = Field(None, description="environment variable that holds the server's key")
        timeout_s: float = Field(60.0, gt=0)
        max_tokens: int | None = Field(None, ge=8, description="longer texts are cut; null: the model's own limit")
        prefix: str | None = Field(None, description="before each item's text; null: what the model's folder says")
        query_prefix: str | None = Field(None, description="before each question; null: what the model's folder says")
        harmless: ClassVar[frozenset[str]] = frozenset({"key_env", "timeout_s", "query_prefix"})

        @field_validator("url")
        @classmethod
        def _is_http(cls, value: str | None) -> str | None:
            if value is not None and not value.startswith(("http://", "https://")):
                raise ValueError("must start with http:// or https://")
            return value

        @model_validator(mode="after")
        def _fits(self) -> "Text.Options":
            if self.url is not None and self.model is None:
                raise ValueError("url needs model, the name of the model on that server")
            if self.url is None and self.key_env is not None:
                raise ValueError("key_env is of use only with url")
            return self

    chunk_size = 4096
    options: "Text.Options"

    def __init__(self, folder: Path, threads: int = 1, source: Path | None = None) -> None:
        super().__init__(folder, threads, source)
        prompts, options = self.settings["prompts"], self.options
        self._prefix = prompts["document"] if options.prefix is None else options.prefix
        self._query_prefix = prompts["query"] if options.query_prefix is None else options.query_prefix
        if self.options.url is not None:
            return
        from tokenizers import Tokenizer

        self._network = OnnxNetwork(folder / NETWORK, threads)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.settings["max_tokens"])

    def content(self, item: Item) -> bytes | None:
        """Title, text and categories that are there, with a full stop between them."""
        parts = [item.get("title"), item.get("text"), ", ".join(categories_of(item))]
        text = ". ".join(part.strip() for part in parts if part and part.strip())
        return text[:MAX_CHARACTERS].encode("utf-8", "replace") or None

    def encode_contents(self, contents: Sequence[bytes]) -> tuple[np.ndarray, list[str | None]]:
        texts = [self._prefix + content.decode() for content in contents]
        return (self._encode(texts), [None] * len(texts)) if self.options.url is None else self._served(texts)

    def _served(self, texts: list[str]) -> tuple[np.ndarray, list[str | None]]:
        """As `encode_contents`. A text that the server refuses, such as too long a one, costs no other its vector."""
        try:
            return self._encode(texts), [None] * len(texts)
        except RefusedTextError:
            if len(texts) == 1:
                self._encode([HARMLESS])  # raises where it is not this text that is refused
                return np.zeros((1, self.dim), np.float32), ["refused by the server"]
            middle = len(texts) // 2
            (first, why), (second, more) = self._served(texts[:middle]), self._served(texts[middle:])
            return np.concatenate([first, second]), why + more

    def query(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [B, D]: free texts, such as questions, in the space of the items; zeros for an empty one."""
        asked = [row for row, text in enumerate(texts) if text.strip()]
        vectors_BD = np.zeros((len(texts), self.dim), np.float32)
        if asked:
            vectors_BD[asked] = self._encode([self._query_prefix + texts[row][:MAX_CHARACTERS] for row in asked])
        return vectors_BD

    def _encode(self, texts: list[str]) -> np.ndarray:
        if self.options.url is None:
            return normalised(self._by_network(texts))
        vectors_BD = normalised(served_embeddings(self.options, texts))
        if vectors_BD.shape[1] != self.dim:
            raise CallError(
                f"encode.text.url: {self.options.url} answers vectors of {vectors_BD.shape[1]} numbers where it "
                f"answered {self.dim} before: has the model behind {self.options.model!r} changed?"
            )
        return vectors_BD

    def _by_network(self, texts: list[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        rows_of: dict[int, list[int]] = {}  # by number of tokens; a text of which none are left stays zeros
        for row, tokens in enumerate(ids):
            if tokens:
                rows_of.setdefault(len(tokens), []).append(row)
        vectors_BD = np.zeros((len(texts), self.dim), np.float32)
        for length, rows in rows_of.items():
            at_once = max(2, TOKENS_AT_ONCE // length)
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                token_idx = np.array([ids[row] for row in (some if len(some) > 1 else some * 2)], np.int64)
                vectors_BD[some] = self._network(token_idx, np.ones_like(token_idx))[: len(some)]
        return vectors_BD


def served_embeddings(options: Text.Options, texts: Sequence[str]) -> np.ndarray:
    """float32 [B, D] of `texts` (B > 0) from the server of `options`, some texts a call; a busy one is asked again.

    Raises CallError when the server cannot be reached, refuses, or answers anything but one finite vector a text.
    """
    vectors = [_call(options, texts[i : i + TEXTS_A_CALL]) for i in range(0, len(texts), TEXTS_A_CALL)]
    if len({len(found[0]) for found in vectors}) > 1:
        raise CallError(f"encode.text.url: {options.url} answers vectors of different lengths")
    return np.concatenate(vectors)


def _call(options: Text.Options, texts: Sequence[str]) -> np.ndarray:
    body = json.dumps({"model": options.model, "input": list(texts), "encoding_format": "float"}).encode()
    headers = {"Content-Type": "application/json"}
    if options.key_env is not None:
        if not (key := os.environ.get(options.key_env, "").strip()):
            raise CallError(f"encode.text.key_env: the environment variable {options.key_env} is not set")
        headers["Authorization"] = f"Bearer {key}"
    assert options.url is not None
    request = urllib.request.Request(f"{options.url.rstrip('/')}/embeddings", body, headers)
    for left in reversed(range(TRIES)):
        try:
            with open_without_redirects(request, options.timeout_s) as answer:
                told = answer.read(MAX_ANSWER_BYTES)
            break
        except urllib.error.HTTPError as error:
            found = f"{error.code} {error.read(300).decode('utf-8', 'replace').strip()}"
            if not left or error.code not in RETRIED:
                kind = RefusedTextError if error.code in REFUSED_TEXT else CallError
                raise kind(f"encode.text.url: {request.full_url} answered {found}") from None
            wait_s = _wait_s(error.headers.get("Retry-After"), TRIES - left)
        except OSError as error:
            if not left:
                raise CallError(f"encode.text.url: {request.full_url} cannot be reached ({error})") from None
            wait_s = _wait_s(None, TRIES - left)
        time.sleep(wait_s)
    try:
        return _read_answer(json.loads(told), len(texts))
    except (ValueError, KeyError, TypeError) as error:
        raise CallError(
            f"encode.text.url: {request.full_url} did not answer one vector for each of {len(texts)} texts ({error!r})"
        ) from None


def _read_answer(answer: dict[str, Any], num_texts: int) -> np.ndarray:
    by_index = {entry["index"]: entry["embedding"] for entry in answer["data"]}
    vectors_BD = np.array([by_index[i] for i in range(num_texts)], np.float32)
    if len(by_index) != num_texts or vectors_BD.ndim != 2 or not np.isfinite(vectors_BD).all():
        raise ValueError(f"shape {vectors_BD.shape}")
    return vectors_BD


def _wait_s(told: str | None, tries: int) -> float:
    """What the server says, at most half a minute; else 1, 2, 4 s."""
    return min(float(told), 30.0) if told is not None and told.isdecimal() else float(2 ** (tries - 1))
