"""The picture of hidden states by umap-learn, which the lab does without."""

from __future__ import annotations

import numpy as np

from engine.evaluation.representations.projection import joint_umap, umap_here


def test_umap_keeps_what_is_near_together_and_is_the_same_again() -> None:
    assert umap_here()
    drawn = np.random.default_rng(0)
    groups = np.repeat([0, 1], 20)
    directions = np.eye(32)[groups * 5]
    states = [(directions + drawn.normal(0, 0.05, directions.shape)).astype(np.float32) for _ in range(3)]
    places = joint_umap(states)
    assert [place.shape for place in places] == [(40, 2)] * 3
    together, group = np.concatenate(places), np.tile(groups, 3)
    apart = np.linalg.norm(together[:, None] - together[None], axis=-1) + np.diag(np.full(len(together), np.inf))
    assert (group[apart.argmin(1)] == group).all(), "the nearest point is of the same group"
    assert all(np.array_equal(one, other) for one, other in zip(places, joint_umap(states), strict=True))
