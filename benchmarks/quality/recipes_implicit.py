"""Tables of data sets with a published division: LightGCN's Gowalla and NCF's MovieLens-1M (see implicit.py).

Settings were chosen on validation (NDCG) alone; every model is then fitted again on the whole published train part.
"""

from typing import Any

from benchmarks.quality.implicit import gowalla, ncf_movielens_1m
from benchmarks.quality.tasks import Published, Recipe, Table

# The longest history of each file fits.
_GOWALLA: dict[str, dict[str, Any]] = {
    "spectral": {
        "num_factors": 512,
        "num_ideal": 512,
        "ideal_weight": 0.2,
        "flatness": 2.0,
        "degree_exponent": 0.4,
        "max_history": 1000,
    },
    "ials": {
        "embedding_dim": 512,
        "num_negatives": 30.0,
        "regularization": 0.002,
        "epochs": 8,
        "solver_steps": 3,
        "max_history": 1000,
    },
}
_NCF: dict[str, dict[str, Any]] = {
    "ials": {
        "embedding_dim": 192,
        "num_negatives": 6.8,
        "regularization": 0.007,
        "epochs": 12,
        "solver_steps": 3,
        "max_history": 2400,
    },
    "ease": {"regularization": 1000, "max_links": 1000, "max_history": 2400},
}
_NCF_ORDERED: dict[str, dict[str, Any]] = {
    **_NCF,
    "slist": {"solver": "exact", "alpha": 0.3, "window": 30, "decay": 5, "floor": 0.05, "horizon": 5},
    "recency_ease": {},
}

TABLES = (
    Table(
        name="gowalla",
        protocol=(
            "LightGCN's division, whole catalogue, train items removed; chosen on a tenth of each user's train items, "
            "then fitted on all of them; the file has no order"
        ),
        load=gowalla,
        recipes=(
            Recipe("most_popular", "most_popular", is_random=False),
            Recipe("item_knn", "item_knn", {"item_knn": {"max_history": 1000}}, is_random=False),
            Recipe("spectral", "spectral", _GOWALLA, is_random=False),
            Recipe("ials", "ials", _GOWALLA),
            Recipe("fusion", "fusion", {**_GOWALLA, "fusion": {"members": list(_GOWALLA), "max_users": 6000}}),
        ),
        published=(
            Published("ChebyCF", {"recall@20": 0.1941, "ndcg@20": 0.1616}, "github.com/chanwoo0806/ChebyCF, README"),
            Published("NESCL", {"recall@20": 0.1917, "ndcg@20": 0.1617}, "github.com/PeiJieSun/NESCL, README"),
            Published("BSPM-EM", {"recall@20": 0.1920, "ndcg@20": 0.1597}, "github.com/PeiJieSun/NESCL, README"),
            Published(
                "GF-CF", {"recall@20": 0.1849, "ndcg@20": 0.1518}, "github.com/reczoo/BARS, gowalla_m1 leaderboard"
            ),
            Published(
                "LightGCN", {"recall@20": 0.1830, "ndcg@20": 0.1554}, "github.com/reczoo/BARS, gowalla_m1 leaderboard"
            ),
        ),
    ),
    Table(
        name="ncf_ml1m",
        protocol=(
            "NCF's division: the last item of each user among 99 sampled negatives; chosen on each user's last train "
            "item among 99 sampled ones, then fitted on the whole train part; models that read the order of a history "
            "take it from SASRec's file"
        ),
        load=ncf_movielens_1m,
        recipes=(
            Recipe("most_popular", "most_popular", is_random=False),
            Recipe("ease", "ease", _NCF, is_random=False),
            Recipe("ials", "ials", _NCF),
            Recipe("fusion without order", "fusion", {**_NCF, "fusion": {"members": list(_NCF)}}),
            Recipe("slist", "slist", _NCF_ORDERED, is_random=False),
            Recipe("fusion", "fusion", {**_NCF_ORDERED, "fusion": {"members": list(_NCF_ORDERED)}}),
        ),
        published=(
            Published(
                "iALS",
                {"hit_rate@10": 0.7310, "ndcg@10": 0.4521},
                "arXiv 2110.14037, table 5, as given in irspack's examples/1-vs-100-negative.ipynb",
                "does not read the order",
            ),
            Published(
                "NeuMF (pre-trained)",
                {"hit_rate@10": 0.726, "ndcg@10": 0.445},
                "github.com/guoyang9/NCF, README",
                "does not read the order",
            ),
        ),
    ),
)
