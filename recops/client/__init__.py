"""A typed client of the service: `Client`, and `AsyncClient` for asyncio.

    with Client("https://recops.example", api_key=key) as client:
        for item in client.recommend(user_id="17", k=5)["items"]:
            print(item["item_id"], item["score"])

Answers are typed dictionaries, as the service's JSON (`recops.client.types`). Needs httpx, and nothing else of recops.
"""

from recops.client import errors, types
from recops.client.clients import AsyncClient, Client
from recops.client.errors import ServiceError
from recops.client.retries import Retries

__all__ = ["AsyncClient", "Client", "Retries", "ServiceError", "errors", "types"]
