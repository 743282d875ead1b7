"""Bayesian factorisation of explicit ratings by Gibbs sampling, with who rated what as a feature of users and items.

Salakhutdinov, Mnih: "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo" (ICML 2008) for the
sampler; Simm et al.: "Macau: scalable Bayesian factorization with high-dimensional side information" (MLSP 2017) for
features in the prior; which features, "SVD++" and the same from the items' side ("flipped"), is from Rendle, Zhang,
Koren: "On the difficulty of evaluating baselines" (2019). In: `Interactions` with a value for each event. Out: a table
of user vectors and item vectors, whose product is the predicted rating. Knows nothing about order and times.

Shapes: E events, U users, N items (row 0 of both is nobody), R rows of one side, C of the other, D width, F features,
K columns of a sketch, J rows of a sketch.
"""

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import svds

from recops.data.interactions import Interactions
from recops.evaluation.ratings import check_values
from recops.models._tables import RatingTables
from recops.params import Group

# Of the prior on the mean of the vectors: counts as so many vectors at 0.
_PRIOR_COUNT = 2.0


class BayesianFactorization(RatingTables):
    """rating of item i by user u ~ Normal(mean + b_u + c_i + p_u.q_i, 1 / (a * a_u))

    where (b_u, p_u) and (c_i, q_i) are drawn around a linear function of the features of the row: the leading singular
    vectors of the table of who rated what, divided by the roots of its counts. Means, covariances, the weights of the
    features, the noise and what of it is the user's own (a_u) are sampled too, so nothing is left to be regularised.

    The mean over the samples is not of low rank: it is served from `served_dim` directions, found while sampling. An
    event's weight multiplies its precision. Without any event every score is 0.
    """

    class Config(Group):
        embedding_dim: int = Field(10, ge=1)
        num_features: int = Field(120, ge=0, description="singular vectors of who rated what; 0: none")
        burn_in: int = Field(50, ge=0, description="samples that are thrown away first")
        num_samples: int = Field(250, ge=1, description="samples whose predictions are averaged")
        noise_shape: float = Field(10.0, gt=0, description="the smaller, the more the noise of users may differ")
        served_dim: int = Field(96, ge=1, description="directions kept of the mean over the samples, beside the biases")

    def __init__(self, config: Config, num_users: int, num_items: int, seed: int) -> None:
        self.config = config
        self._seed = seed
        self.user_table = np.zeros((num_users + 1, config.served_dim + 2), np.float32)
        self.item_vectors = np.zeros((num_items + 1, config.served_dim + 2), np.float32)

    def fit(self, train: Interactions) -> None:
        """Raises CallError where an event has no value."""
        check_values(train.value, "train.models.bayesian_factorization")
        if len(train) == 0:
            return
        config, generator = self.config, np.random.default_rng(self._seed)
        user_idx, item_idx = train.user_idx, train.item_idx
        shape = (train.num_users + 1, train.num_items + 1)
        mean = float(np.average(train.value, weights=train.weight))
        centred_E = train.value.astype(np.float64) - mean
        user_features, item_features = _who_rated_what(user_idx, item_idx, shape, config.num_features)
        users = _Side(user_idx, item_idx, shape, config.embedding_dim, user_features, generator)
        items = _Side(item_idx, user_idx, shape[::-1], config.embedding_dim, item_features, generator)
        sketch = _MeanSketch(shape, config.served_dim, generator)
        num_events_U = np.bincount(user_idx, minlength=shape[0])
        noise, noise_U = 1.0, np.ones(shape[0])
        for step in range(config.burn_in + config.num_samples):
            precision_E = noise * noise_U[user_idx] * train.weight
            users.draw_prior()
            users.draw_vectors(items.vectors_RD, centred_E - items.vectors_RD[item_idx, 0], precision_E)
            items.draw_prior()
            items.draw_vectors(users.vectors_RD, centred_E - users.vectors_RD[user_idx, 0], precision_E)

            bias_E = users.vectors_RD[user_idx, 0] + items.vectors_RD[item_idx, 0]
            product_E = np.einsum("ed,ed->e", users.vectors_RD[user_idx, 1:], items.vectors_RD[item_idx, 1:])
            error_E = train.weight * (centred_E - bias_E - product_E) ** 2
            noise = generator.gamma((1 + len(train)) / 2) / ((1 + (error_E * noise_U[user_idx]).sum()) / 2)
            error_U = noise * np.bincount(user_idx, error_E, shape[0])
            noise_U = generator.gamma((config.noise_shape + num_events_U) / 2)
            noise_U /= (config.noise_shape + error_U) / 2
            if step >= config.burn_in:
                sketch.add(users.vectors_RD, items.vectors_RD)

        user_bias_U, item_bias_N, left_UK, right_NK = sketch.mean()
        self.user_table = _columns(left_UK, mean + user_bias_U, np.ones(shape[0]))
        self.item_vectors = _columns(right_NK, np.ones(shape[1]), item_bias_N)


class _Side:
    """The vectors of all rows of one side, bias first, and their prior; each `draw_` takes one Gibbs step."""

    def __init__(
        self,
        row_E: np.ndarray,
        other_E: np.ndarray,
        shape: tuple[int, int],
        dim: int,
        features_RF: np.ndarray,
        generator: np.random.Generator,
    ) -> None:
        self._generator, self._shape, self._features_RF = generator, shape, features_RF
        self._order_E = np.argsort(row_E, kind="stable")
        self._indptr = np.searchsorted(row_E[self._order_E], np.arange(shape[0] + 1))
        self._indices = other_E[self._order_E]
        self.vectors_RD = 0.1 * generator.standard_normal((shape[0], dim + 1))
        self.vectors_RD[:, 0] = 0
        self._mean_D = np.zeros(dim + 1)
        self._precision_DD = np.eye(dim + 1)
        self._feature_weights_FD = np.zeros((features_RF.shape[1], dim + 1))
        self._feature_precision = 1.0

    def draw_prior(self) -> None:
        """Mean and precision of the vectors, then what the features add to the mean."""
        generator, weights_FD = self._generator, self._feature_weights_FD
        num_rows, dim = self.vectors_RD.shape
        rest_RD = self.vectors_RD - self._features_RF @ weights_FD
        mean_D = rest_RD.mean(0)
        scatter_DD = np.eye(dim) + (rest_RD - mean_D).T @ (rest_RD - mean_D)
        scatter_DD += self._feature_precision * weights_FD.T @ weights_FD
        scatter_DD += num_rows * _PRIOR_COUNT / (num_rows + _PRIOR_COUNT) * np.outer(mean_D, mean_D)
        self._precision_DD = _wishart(scatter_DD, dim + num_rows + len(weights_FD), generator)
        root_DD = np.linalg.cholesky(self._precision_DD)
        spread_D = np.linalg.solve(root_DD.T, generator.standard_normal(dim)) / np.sqrt(num_rows + _PRIOR_COUNT)
        self._mean_D = num_rows / (num_rows + _PRIOR_COUNT) * mean_D + spread_D
        if len(weights_FD) == 0:
            return
        # The columns of the features are orthogonal, so that their weights are drawn without solving for them.
        precision_F1 = (self._features_RF**2).sum(0)[:, None] + self._feature_precision
        spread_FD = np.linalg.solve(root_DD.T, generator.standard_normal((dim, len(weights_FD)))).T
        weights_FD = self._features_RF.T @ (self.vectors_RD - self._mean_D) / precision_F1
        weights_FD += spread_FD / np.sqrt(precision_F1)
        size = np.einsum("fd,de,fe->", weights_FD, self._precision_DD, weights_FD)
        self._feature_weights_FD = weights_FD
        self._feature_precision = generator.gamma((1 + weights_FD.size) / 2) / ((1 + size) / 2)

    def draw_vectors(self, others_CD: np.ndarray, rest_E: np.ndarray, precision_E: np.ndarray) -> None:
        """All vectors, given those of the other side; `rest_E` is what the other side's biases leave of the values."""
        num_rows, dim = self.vectors_RD.shape
        others_CD = others_CD.copy()
        others_CD[:, 0] = 1
        upper, lower = np.triu_indices(dim)
        squares_RT = self._sums(precision_E) @ (others_CD[:, upper] * others_CD[:, lower])
        precision_RDD = np.empty((num_rows, dim, dim))
        precision_RDD[:, upper, lower] = precision_RDD[:, lower, upper] = squares_RT
        precision_RDD += self._precision_DD
        prior_RD = self._mean_D + self._features_RF @ self._feature_weights_FD
        pull_RD = self._sums(precision_E * rest_E) @ others_CD + prior_RD @ self._precision_DD
        root_RDD = np.linalg.cholesky(precision_RDD)
        drawn_RD1 = np.linalg.solve(root_RDD, pull_RD[:, :, None])
        drawn_RD1 += self._generator.standard_normal((num_rows, dim, 1))
        self.vectors_RD = np.linalg.solve(root_RDD.transpose(0, 2, 1), drawn_RD1)[:, :, 0]

    def _sums(self, weight_E: np.ndarray) -> sparse.csr_array:
        return sparse.csr_array((weight_E[self._order_E], self._indices, self._indptr), shape=self._shape)


class _MeanSketch:
    """The mean over samples of users U times items V', held as two sketches of it, from which it is made in the end.

    Tropp, Yurtsever, Udell, Cevher: "Practical sketching algorithms for low-rank matrix approximation" (2017). Exact
    where the mean has at most `dim` directions.
    """

    def __init__(self, shape: tuple[int, int], dim: int, generator: np.random.Generator) -> None:
        self._dim = dim
        width = min(2 * dim, *shape)
        self._right_NK = generator.standard_normal((shape[1], width))
        self._left_JU = generator.standard_normal((2 * width + 1, shape[0]))
        self._range_UK = np.zeros((shape[0], width))
        self._corange_JN = np.zeros((2 * width + 1, shape[1]))
        self._user_bias_U, self._item_bias_N = np.zeros(shape[0]), np.zeros(shape[1])
        self._count = 0

    def add(self, users_UD: np.ndarray, items_ND: np.ndarray) -> None:
        self._range_UK += users_UD[:, 1:] @ (items_ND[:, 1:].T @ self._right_NK)
        self._corange_JN += (self._left_JU @ users_UD[:, 1:]) @ items_ND[:, 1:].T
        self._user_bias_U += users_UD[:, 0]
        self._item_bias_N += items_ND[:, 0]
        self._count += 1

    def mean(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """User biases [U], item biases [N], and user [U, K] and item vectors [N, K] for the rest."""
        basis_UK = np.linalg.qr(self._range_UK)[0]
        inner_KN = np.linalg.lstsq(self._left_JU @ basis_UK, self._corange_JN / self._count)[0]
        turn_KK, strength_K, axes_KN = np.linalg.svd(inner_KN, full_matrices=False)
        left_UK = np.zeros((len(basis_UK), self._dim))
        right_NK = np.zeros((inner_KN.shape[1], self._dim))
        kept = min(self._dim, len(strength_K))
        left_UK[:, :kept] = basis_UK @ (turn_KK * np.sqrt(strength_K))[:, :kept]
        right_NK[:, :kept] = (axes_KN.T * np.sqrt(strength_K))[:, :kept]
        return self._user_bias_U / self._count, self._item_bias_N / self._count, left_UK, right_NK


def _who_rated_what(
    user_idx: np.ndarray, item_idx: np.ndarray, shape: tuple[int, int], num_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features of users [U, F] and items [N, F]: singular vectors times singular values, columns orthogonal."""
    num_features = min(num_features, min(shape) - 1)
    if num_features < 1:
        return np.zeros((shape[0], 0)), np.zeros((shape[1], 0))
    rated_UN = sparse.csr_array((np.ones(len(user_idx)), (user_idx, item_idx)), shape=shape)
    rated_UN.data[:] = 1
    root_U, root_N = (np.sqrt(np.maximum(rated_UN.sum(axis), 1)) for axis in (1, 0))
    rated_UN = sparse.diags_array(1 / root_U) @ rated_UN @ sparse.diags_array(1 / root_N)
    left_UF, strength_F, right_FN = svds(rated_UN, k=num_features, v0=np.ones(min(shape)))
    return left_UF * strength_F, right_FN.T * strength_F


def _wishart(scatter_DD: np.ndarray, degrees: int, generator: np.random.Generator) -> np.ndarray:
    """A draw from the Wishart distribution with the scale `scatter_DD`^-1, by Bartlett's decomposition."""
    dim = len(scatter_DD)
    root_DD = np.tril(generator.standard_normal((dim, dim)), -1)
    root_DD[np.diag_indices(dim)] = np.sqrt(generator.chisquare(degrees - np.arange(dim)))
    # scatter = L L', so L'^-1 L^-1 is its inverse.
    half_DD = np.linalg.solve(np.linalg.cholesky(scatter_DD).T, root_DD)
    return half_DD @ half_DD.T


def _columns(table_RD: np.ndarray, *more_R: np.ndarray) -> np.ndarray:
    """float32 [R, D + columns], row 0 zeros."""
    table = np.column_stack([table_RD, *more_R]).astype(np.float32)
    table[0] = 0
    return table
