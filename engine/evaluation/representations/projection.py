"""A picture of many-dimensional states in two dimensions: one projection for all checkpoints, so that points move from
one to the next, and do not jump with the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

SEED = 0
NEIGHBOURS = 15


def joint_pca(states: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[float]]:
    """The first two principal components of all states together (Pearson 1901; by singular values).

    states: of each checkpoint (points, size). Returns of each (points, 2), and of each component its share of the
    variance. A component's sign is such that the point farthest out lies on its positive side.
    """
    together = np.concatenate(states).astype(np.float64)
    centred = together - together.mean(0)
    if len(centred) < centred.shape[1]:  # eigh sorts upwards
        variances, sides = np.linalg.eigh(centred @ centred.T)
        places = sides[:, ::-1][:, :2] * np.sqrt(np.maximum(variances[::-1][:2], 0))
    else:
        variances, axes = np.linalg.eigh(centred.T @ centred)
        places = centred @ axes[:, ::-1][:, :2]
    farthest = places[np.abs(places).argmax(0), np.arange(places.shape[1])]
    shares = variances[::-1][:2] / max(float(variances.sum()), 1e-300)
    return _apart(places * np.where(farthest < 0, -1, 1), states), [float(share) for share in shares]


def umap_here() -> bool:
    """Whether umap-learn is installed, which the lab does without (`make umap`)."""
    return find_spec("umap") is not None


def joint_umap(states: Sequence[np.ndarray]) -> list[np.ndarray]:
    """UMAP of all states together (McInnes, Healy and Melville 2018, arXiv:1802.03426), by cosine; of each checkpoint
    (points, 2). Takes seconds. The same each time on one machine. Raises ImportError without umap-learn."""
    from umap import UMAP

    together = np.concatenate(states).astype(np.float32)
    neighbours = max(2, min(NEIGHBOURS, len(together) - 1))
    # Its seed takes one thread, so that the picture is the same when the page is opened again.
    found = UMAP(n_neighbors=neighbours, metric="cosine", random_state=SEED, n_jobs=1).fit_transform(together)
    return _apart(np.asarray(found, np.float64), states)


def _apart(together: np.ndarray, states: Sequence[np.ndarray]) -> list[np.ndarray]:
    return np.split(together, np.cumsum([len(part) for part in states])[:-1])
