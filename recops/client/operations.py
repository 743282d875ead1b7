"""The calls of the service as methods.

Made by `python -m clients` from the service's OpenAPI; not to be changed by hand.
"""

from collections.abc import Sequence
from typing import Any

from recops.client import types
from recops.client.call import AsyncCaller, Call, Caller

ASK: Call[types.AskAnswer] = Call("POST", "/ask", "always")
DOCS: Call[str] = Call("GET", "/docs", "always", is_text=True)
DOCS_JSON: Call[dict[str, Any]] = Call("GET", "/docs.json", "always")
OPENAPI_JSON: Call[dict[str, Any]] = Call("GET", "/openapi.json", "always")
EVENTS: Call[types.EventsAnswer] = Call("POST", "/events", "always")
LIVEZ: Call[types.LivezAnswer] = Call("GET", "/livez", "never")
READYZ: Call[types.ReadyzAnswer] = Call("GET", "/readyz", "never")
ITEMS: Call[types.ItemsAnswer] = Call("POST", "/items", "always")
METRICS: Call[str] = Call("GET", "/metrics", "always", is_text=True)
RECOMMEND: Call[types.RecommendAnswer] = Call("POST", "/recommend", "always")
RECOMMEND_BATCH: Call[types.RecommendBatchAnswer] = Call("POST", "/recommend/batch", "always")
RELEASE: Call[types.ReleaseAnswer] = Call("GET", "/release", "always")
SCORE: Call[types.ScoreAnswer] = Call("POST", "/score", "always")
SIMILAR: Call[types.SimilarAnswer] = Call("POST", "/similar", "always")
TRAFFIC: Call[types.TrafficAnswer] = Call("GET", "/admin/traffic", "always")
SET_TRAFFIC: Call[types.SetTrafficAnswer] = Call("POST", "/admin/traffic", "refused")
USER: Call[types.UserAnswer] = Call("GET", "/users/{user_id}", "always")
ERASE_USER: Call[types.EraseUserAnswer] = Call("DELETE", "/users/{user_id}", "always")


class Operations(Caller):
    def ask(
        self,
        question: str,
        *,
        user_id: str | None = None,
        history: Sequence[str | types.HistoryEvent] | None = None,
        k: int | None = None,
        conversation: Sequence[types.Turn] | None = None,
        log: bool | None = None,
        timeout_s: float | None = None,
    ) -> types.AskAnswer:
        """A question in words, answered by items of the catalogue.

        user_id: Id of a user, as in the log.
        history: Oldest first; sorted by time where every event has one. May be empty.
        k: Length of the list.
        conversation: Oldest first. Nothing of it is kept: the next call brings it again.
        log: Keep which items were shown, as for a recommendation; never the words.
        """
        return self._call(
            ASK,
            {
                "user_id": user_id,
                "history": history,
                "question": question,
                "k": k,
                "conversation": conversation,
                "log": log,
            },
            timeout_s,
        )

    def docs(
        self,
        *,
        timeout_s: float | None = None,
    ) -> str:
        """This page."""
        return self._call(DOCS, {}, timeout_s)

    def docs_json(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """This description as OpenAPI 3.1."""
        return self._call(DOCS_JSON, {}, timeout_s)

    def openapi_json(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """The same."""
        return self._call(OPENAPI_JSON, {}, timeout_s)

    def events(
        self,
        events: Sequence[types.TellEvent],
        *,
        timeout_s: float | None = None,
    ) -> types.EventsAnswer:
        """What users did: on disk once this answers, and part of their histories at once."""
        return self._call(EVENTS, {"events": events}, timeout_s)

    def livez(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.LivezAnswer:
        """200 while the process answers."""
        return self._call(LIVEZ, {}, timeout_s)

    def readyz(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.ReadyzAnswer:
        """200 once a release is loaded and warmed up; 503 before, and when told to end."""
        return self._call(READYZ, {}, timeout_s)

    def items(
        self,
        items: Sequence[types.NewItem],
        *,
        timeout_s: float | None = None,
    ) -> types.ItemsAnswer:
        """Add items to the served release, or change them; a column that is not given stays as it is."""
        return self._call(ITEMS, {"items": items}, timeout_s)

    def metrics(
        self,
        *,
        timeout_s: float | None = None,
    ) -> str:
        """Figures for Prometheus."""
        return self._call(METRICS, {}, timeout_s)

    def recommend(
        self,
        *,
        user_id: str | None = None,
        history: Sequence[str | types.HistoryEvent] | None = None,
        diversity: float | None = None,
        exclude: Sequence[str] | None = None,
        k: int | None = None,
        filters: types.Filters | None = None,
        explain: bool | None = None,
        timeout_s: float | None = None,
    ) -> types.RecommendAnswer:
        """The best items for a user or a history.

        user_id: Id of a user, as in the log.
        history: Oldest first; sorted by time where every event has one. May be empty.
        diversity: 0: by score alone; 1: as unlike as can be. Else what the service is set to.
        exclude: Item ids that must not be shown.
        k: Length of the list.
        explain: Add to each item the reasons why it stands there.
        """
        return self._call(
            RECOMMEND,
            {
                "user_id": user_id,
                "history": history,
                "diversity": diversity,
                "exclude": exclude,
                "k": k,
                "filters": filters,
                "explain": explain,
            },
            timeout_s,
        )

    def recommend_batch(
        self,
        requests: Sequence[types.Recommend],
        *,
        timeout_s: float | None = None,
    ) -> types.RecommendBatchAnswer:
        """Lists for up to 256 users at once."""
        return self._call(RECOMMEND_BATCH, {"requests": requests}, timeout_s)

    def release(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.ReleaseAnswer:
        """What is served and where it came from."""
        return self._call(RELEASE, {}, timeout_s)

    def score(
        self,
        item_ids: Sequence[str],
        *,
        user_id: str | None = None,
        history: Sequence[str | types.HistoryEvent] | None = None,
        timeout_s: float | None = None,
    ) -> types.ScoreAnswer:
        """A score for each item, null for an unknown one, in the order asked.

        user_id: Id of a user, as in the log.
        history: Oldest first; sorted by time where every event has one. May be empty.
        """
        return self._call(SCORE, {"user_id": user_id, "history": history, "item_ids": item_ids}, timeout_s)

    def similar(
        self,
        item_id: str,
        *,
        exclude: Sequence[str] | None = None,
        k: int | None = None,
        filters: types.Filters | None = None,
        timeout_s: float | None = None,
    ) -> types.SimilarAnswer:
        """The items nearest to one item that the filters let through; 404 for an item the release does not know.

        exclude: Item ids that must not be shown.
        item_id: Id of an item, as in the log.
        k: Length of the list.
        """
        return self._call(SIMILAR, {"exclude": exclude, "item_id": item_id, "k": k, "filters": filters}, timeout_s)

    def traffic(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.TrafficAnswer:
        """Challengers, and what came of what they and the served release showed."""
        return self._call(TRAFFIC, {}, timeout_s)

    def set_traffic(
        self,
        arms: Sequence[types.Arm],
        *,
        timeout_s: float | None = None,
    ) -> types.SetTrafficAnswer:
        """Set which challengers answer beside the served release: in shadow, as canary, or in an A/B test.

        arms: All challengers; those that are not named answer no longer.
        """
        return self._call(SET_TRAFFIC, {"arms": arms}, timeout_s)

    def user(
        self,
        user_id: str,
        *,
        limit: int | None = None,
        before: str | None = None,
        timeout_s: float | None = None,
    ) -> types.UserAnswer:
        """What is held about a user: events told, newest first, and how much lies elsewhere.

        user_id: Id of a user, as in the log.
        limit: Events at most.
        before: An event_id of the user, else a time: only events before it.
        """
        return self._call(USER, {"user_id": user_id, "limit": limit, "before": before}, timeout_s)

    def erase_user(
        self,
        user_id: str,
        *,
        timeout_s: float | None = None,
    ) -> types.EraseUserAnswer:
        """Erase a user: from the store at once, and from the next training.

        user_id: Id of a user, as in the log.
        """
        return self._call(ERASE_USER, {"user_id": user_id}, timeout_s)


class AsyncOperations(AsyncCaller):
    async def ask(
        self,
        question: str,
        *,
        user_id: str | None = None,
        history: Sequence[str | types.HistoryEvent] | None = None,
        k: int | None = None,
        conversation: Sequence[types.Turn] | None = None,
        log: bool | None = None,
        timeout_s: float | None = None,
    ) -> types.AskAnswer:
        """A question in words, answered by items of the catalogue.

        user_id: Id of a user, as in the log.
        history: Oldest first; sorted by time where every event has one. May be empty.
        k: Length of the list.
        conversation: Oldest first. Nothing of it is kept: the next call brings it again.
        log: Keep which items were shown, as for a recommendation; never the words.
        """
        return await self._call(
            ASK,
            {
                "user_id": user_id,
                "history": history,
                "question": question,
                "k": k,
                "conversation": conversation,
                "log": log,
            },
            timeout_s,
        )

    async def docs(
        self,
        *,
        timeout_s: float | None = None,
    ) -> str:
        """This page."""
        return await self._call(DOCS, {}, timeout_s)

    async def docs_json(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """This description as OpenAPI 3.1."""
        return await self._call(DOCS_JSON, {}, timeout_s)

    async def openapi_json(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """The same."""
        return await self._call(OPENAPI_JSON, {}, timeout_s)

    async def events(
        self,
        events: Sequence[types.TellEvent],
        *,
        timeout_s: float | None = None,
    ) -> types.EventsAnswer:
        """What users did: on disk once this answers, and part of their histories at once."""
        return await self._call(EVENTS, {"events": events}, timeout_s)

    async def livez(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.LivezAnswer:
        """200 while the process answers."""
        return await self._call(LIVEZ, {}, timeout_s)

    async def readyz(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.ReadyzAnswer:
        """200 once a release is loaded and warmed up; 503 before, and when told to end."""
        return await self._call(READYZ, {}, timeout_s)

    async def items(
        self,
        items: Sequence[types.NewItem],
        *,
        timeout_s: float | None = None,
    ) -> types.ItemsAnswer:
        """Add items to the served release, or change them; a column that is not given stays as it is."""
        return await self._call(ITEMS, {"items": items}, timeout_s)

    async def metrics(
        self,
        *,
        timeout_s: float | None = None,
    ) -> str:
        """Figures for Prometheus."""
        return await self._call(METRICS, {}, timeout_s)

    async def recommend(
        self,
        *,
        user_id: str | None = None,
        history: Sequence[str | types.HistoryEvent] | None = None,
        diversity: float | None = None,
        exclude: Sequence[str] | None = None,
        k: int | None = None,
        filters: types.Filters | None = None,
        explain: bool | None = None,
        timeout_s: float | None = None,
    ) -> types.RecommendAnswer:
        """The best items for a user or a history.

        user_id: Id of a user, as in the log.
        history: Oldest first; sorted by time where every event has one. May be empty.
        diversity: 0: by score alone; 1: as unlike as can be. Else what the service is set to.
        exclude: Item ids that must not be shown.
        k: Length of the list.
        explain: Add to each item the reasons why it stands there.
        """
        return await self._call(
            RECOMMEND,
            {
                "user_id": user_id,
                "history": history,
                "diversity": diversity,
                "exclude": exclude,
                "k": k,
                "filters": filters,
                "explain": explain,
            },
            timeout_s,
        )

    async def recommend_batch(
        self,
        requests: Sequence[types.Recommend],
        *,
        timeout_s: float | None = None,
    ) -> types.RecommendBatchAnswer:
        """Lists for up to 256 users at once."""
        return await self._call(RECOMMEND_BATCH, {"requests": requests}, timeout_s)

    async def release(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.ReleaseAnswer:
        """What is served and where it came from."""
        return await self._call(RELEASE, {}, timeout_s)

    async def score(
        self,
        item_ids: Sequence[str],
        *,
        user_id: str | None = None,
        history: Sequence[str | types.HistoryEvent] | None = None,
        timeout_s: float | None = None,
    ) -> types.ScoreAnswer:
        """A score for each item, null for an unknown one, in the order asked.

        user_id: Id of a user, as in the log.
        history: Oldest first; sorted by time where every event has one. May be empty.
        """
        return await self._call(SCORE, {"user_id": user_id, "history": history, "item_ids": item_ids}, timeout_s)

    async def similar(
        self,
        item_id: str,
        *,
        exclude: Sequence[str] | None = None,
        k: int | None = None,
        filters: types.Filters | None = None,
        timeout_s: float | None = None,
    ) -> types.SimilarAnswer:
        """The items nearest to one item that the filters let through; 404 for an item the release does not know.

        exclude: Item ids that must not be shown.
        item_id: Id of an item, as in the log.
        k: Length of the list.
        """
        return await self._call(
            SIMILAR, {"exclude": exclude, "item_id": item_id, "k": k, "filters": filters}, timeout_s
        )

    async def traffic(
        self,
        *,
        timeout_s: float | None = None,
    ) -> types.TrafficAnswer:
        """Challengers, and what came of what they and the served release showed."""
        return await self._call(TRAFFIC, {}, timeout_s)

    async def set_traffic(
        self,
        arms: Sequence[types.Arm],
        *,
        timeout_s: float | None = None,
    ) -> types.SetTrafficAnswer:
        """Set which challengers answer beside the served release: in shadow, as canary, or in an A/B test.

        arms: All challengers; those that are not named answer no longer.
        """
        return await self._call(SET_TRAFFIC, {"arms": arms}, timeout_s)

    async def user(
        self,
        user_id: str,
        *,
        limit: int | None = None,
        before: str | None = None,
        timeout_s: float | None = None,
    ) -> types.UserAnswer:
        """What is held about a user: events told, newest first, and how much lies elsewhere.

        user_id: Id of a user, as in the log.
        limit: Events at most.
        before: An event_id of the user, else a time: only events before it.
        """
        return await self._call(USER, {"user_id": user_id, "limit": limit, "before": before}, timeout_s)

    async def erase_user(
        self,
        user_id: str,
        *,
        timeout_s: float | None = None,
    ) -> types.EraseUserAnswer:
        """Erase a user: from the store at once, and from the next training.

        user_id: Id of a user, as in the log.
        """
        return await self._call(ERASE_USER, {"user_id": user_id}, timeout_s)
