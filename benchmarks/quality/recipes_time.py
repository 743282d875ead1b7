"""The table of models that know when they are asked. In: MovieLens-1M with times (see timed.py).

Stated apart from the tables of order alone: knowing the time of the target helps, since films rated within the same
seconds lie close together in what the site showed.
"""

from pathlib import Path
from typing import Any

from benchmarks.quality import timed
from benchmarks.quality.recipes_sequences import LINEAR, ML1M
from benchmarks.quality.tasks import Published, Recipe, Table, Task

_SETTINGS: dict[str, dict[str, Any]] = {
    **ML1M,
    "ligr_time": {"model": "ligr", "use_time": True},
    **{name: {"members": ["ligr_time", *LINEAR]} for name in ("fusion", "rerank")},
}


def _load(data: Path, quick: bool) -> Task:
    return timed.load(data, 300 if quick else None)


TABLES = (
    Table(
        name="ml1m_time",
        protocol=(
            "leave-last-out, whole catalogue of trained items, items of the history removed; the request is made when "
            "the target happened; 70 % of the times are exact, the others in the middle of their bounds"
        ),
        load=_load,
        recipes=(
            Recipe("hstu", "hstu"),
            Recipe("ligr_time", "ligr_time", _SETTINGS),
            Recipe("fusion", "fusion", _SETTINGS),
            Recipe("rerank", "rerank", _SETTINGS),
        ),
        published=(
            Published(
                "HSTU-large (RecTools)",
                {"ndcg@10": 0.2164, "hit_rate@10": 0.3642},
                "github.com/MobileTeleSystems/RecTools, transformers_HSTU_tutorial.ipynb",
                "all times exact; its training kept all but the last item of most users, where ours leaves out two",
            ),
        ),
    ),
)
