"""Averages of the weights along training, as optax transformations.

They go last in a chain, where the updates are exactly what is added to the parameters, and pass
them on unchanged: the average is part of the optimizer state, and is saved and restored with it.
optax has no such transformation: `optax.ema` averages updates, not parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class AverageState(NamedTuple):
    """The average so far."""

    count: Any  # int32 [], updates so far
    members: Any  # int32 [], how many weights `average` is the mean of
    average: Any  # like the parameters


def stochastic_weight_average(
    is_member: Callable[[jax.Array], Any],
) -> optax.GradientTransformation:
    """Equal mean of the weights after chosen updates (SWA).

    With members w_1 .. w_n the average is (w_1 + ... + w_n) / n, kept as a running mean
    m_n = m_(n-1) + (w_n - m_(n-1)) / n. Until the first member it equals the weights.

    Args:
      is_member: from the number of updates done (int32 []) to whether the weights are a member.

    Returns:
      A transformation that needs `params` in `update`.

    References:
      Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization".
    """

    def weight(count: jax.Array, members: jax.Array) -> tuple[jax.Array, jax.Array]:
        members = members + is_member(count)
        return jnp.where(is_member(count), 1.0 / jnp.maximum(members, 1), members == 0), members

    return _average(weight)


def exponential_moving_average(decay: float, start: int = 0) -> optax.GradientTransformation:
    """m <- decay m + (1 - decay) w after every update from `start` on.

    Until then the average equals the weights, so it needs no debiasing.

    Args:
      decay: between 0 and 1.
      start: updates done before averaging starts.
    """

    def weight(count: jax.Array, members: jax.Array) -> tuple[jax.Array, jax.Array]:
        averaging = count > start
        return jnp.where(averaging, 1.0 - decay, 1.0), members + averaging

    return _average(weight)


def _average(
    weight: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
) -> optax.GradientTransformation:
    """From updates and members so far to the weight of the newest parameters, and the members."""

    def init(params: Any) -> AverageState:
        # Buffers of its own, each used once: a training step donates all of them.
        count, members = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        return AverageState(count, members, jax.tree.map(jnp.array, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        if params is None:
            raise ValueError(
                'an average of weights needs them: call update(updates, state, params)'
            )
        count = state.count + 1
        step_size, members = weight(count, state.members)
        weights = optax.apply_updates(params, updates)
        average = optax.incremental_update(weights, state.average, step_size)
        return updates, AverageState(count, members.astype(jnp.int32), average)

    return optax.GradientTransformation(init, update)


def start_anew(opt_state: Any, params: Any) -> Any:
    """An optimizer state whose average, if it has one, has no members yet.

    Args:
      opt_state: of a chain that ends with an average.
      params: the weights now, which the average equals until it has members.
    """

    def cleared(leaf: Any) -> Any:
        if not isinstance(leaf, AverageState):
            return leaf
        return AverageState(leaf.count, np.zeros_like(leaf.members), params)

    return jax.tree.map(cleared, opt_state, is_leaf=lambda leaf: isinstance(leaf, AverageState))


def find_average(opt_state: Any) -> AverageState | None:
    """The average inside an optimizer state, or None where the optimizer has none."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, AverageState))
    return next((leaf for leaf in leaves if isinstance(leaf, AverageState)), None)
