"""Comparison of pytrees bit for bit."""

import jax
import numpy as np


def assert_same_bits(got, expected):
    """Checks that structures, shapes, types and every bit are the same."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.tobytes() == other.tobytes()
