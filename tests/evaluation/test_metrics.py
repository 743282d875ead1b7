"""Metrics against an independent library and by their laws; the values worked by hand stand in their docstrings."""

import doctest

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recops import plugins
from recops.evaluation.protocol import RankedUsers, ranked_lists

NAMES = plugins.names("evaluation.metrics")
SHARES = ("ndcg", "recall", "hit_rate", "mrr", "map", "coverage", "gini", "diversity")  # lie in [0, 1]
LIBRARY = {"ndcg": "nDCG", "recall": "R", "hit_rate": "Success", "mrr": "RR", "map": "AP"}
NUM_ITEMS, NUM_CATEGORIES = 12, 4


def make_ranked(
    lists: list[list[int]], targets: list[list[int]], histories: list[list[int]] | None = None, k: int = 6
) -> RankedUsers:
    padded = np.array([(row + [0] * k)[:k] for row in lists])
    rng = np.random.default_rng(0)
    categories = (rng.random((NUM_ITEMS + 1, NUM_CATEGORIES)) < 0.4).astype(float)
    categories[0] = 0
    return ranked_lists(
        padded,
        targets,
        item_counts=np.array([0, *rng.integers(0, 30, NUM_ITEMS)]),
        histories=histories,
        categories=sparse.csr_array(categories),
    )


users = st.lists(
    st.tuples(
        st.lists(st.integers(1, NUM_ITEMS), unique=True, max_size=6),
        st.lists(st.integers(0, NUM_ITEMS), max_size=8),
        st.lists(st.integers(1, NUM_ITEMS), max_size=8),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("name", NAMES)
def test_the_values_worked_by_hand(name: str):
    result = doctest.testmod(plugins.load_module("evaluation.metrics", name))
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("k", [1, 5, 20])
def test_agreement_with_an_independent_library(name: str, k: int):
    rng = np.random.default_rng(7)
    lists = [rng.permutation(np.arange(1, 61))[:20] for _ in range(200)]
    targets = [rng.choice(np.arange(1, 61), rng.integers(1, 31), replace=False) for _ in range(200)]
    ranked = ranked_lists(lists, targets, item_counts=[0] + [1] * 60)
    run = {str(u): {str(i): 20.0 - rank for rank, i in enumerate(row)} for u, row in enumerate(lists)}
    truth = {str(u): {str(i): 1 for i in row} for u, row in enumerate(targets)}
    measure = ir_measures.parse_measure(f"{LIBRARY[name]}@{k}")
    theirs = {int(m.query_id): m.value for m in ir_measures.iter_calc([measure], truth, run)}
    ours = plugins.load("evaluation.metrics", name)().compute(ranked, k)
    np.testing.assert_allclose(ours, [theirs[u] for u in range(200)], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(users=users, k=st.integers(1, 6), data=st.data())
def test_every_metric_keeps_the_laws(name: str, users: list, k: int, data: st.DataObject):
    metric = plugins.load("evaluation.metrics", name)()
    values = metric.compute(make_ranked(*map(list, zip(*users, strict=True))), k)
    assert values.dtype == np.float64
    assert values.shape == ((len(users),) if metric.per_user else ())
    if not metric.uses_targets:
        others = [(row, [1, 2], history) for row, _, history in users]
        np.testing.assert_array_equal(metric.compute(make_ranked(*map(list, zip(*others, strict=True))), k), values)
    known = values[np.isfinite(values)]
    assert not np.isinf(values).any()
    if name in SHARES:
        assert (known >= 0).all() and (known <= 1 + 1e-12).all()
    order = data.draw(st.permutations(range(len(users))))
    shuffled = metric.compute(make_ranked(*map(list, zip(*(users[u] for u in order), strict=True))), k)
    np.testing.assert_allclose(shuffled, values[order] if metric.per_user else values, atol=1e-12)


@pytest.mark.parametrize("name", LIBRARY)
def test_accuracy_is_undefined_without_a_target_and_zero_with_an_unknown_one(name: str):
    ranked = make_ranked([[1, 2], [1, 2], []], [[], [0], [3]])
    np.testing.assert_equal(plugins.load("evaluation.metrics", name)().compute(ranked, 2), [np.nan, 0.0, 0.0])


@pytest.mark.parametrize("name", LIBRARY)
def test_an_unknown_target_stays_in_the_denominator(name: str):
    metric = plugins.load("evaluation.metrics", name)()
    alone, beside = metric.compute(make_ranked([[1, 2, 3]] * 2, [[1], [1, 0]]), 3)
    assert alone == 1.0
    assert beside == (
        1.0 if name in ("hit_rate", "mrr") else pytest.approx(1 / 1.6309297535714573) if name == "ndcg" else 0.5
    )


@pytest.mark.parametrize("name", ["diversity", "calibration"])
def test_metrics_of_categories_are_undefined_without_any(name: str):
    ranked = ranked_lists([[1, 2]], [[1]], item_counts=[0, 1, 1], histories=[[1]])
    assert np.isnan(plugins.load("evaluation.metrics", name)().compute(ranked, 2)).all()
