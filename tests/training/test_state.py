"""The state's buffers are its own, and it is one pytree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pneumojax.training import averaging
from pneumojax.training.state import create_state


def variables():
    return {
        'params': {'encoder': {'w': jnp.arange(3.0)}, 'head': jnp.ones(2)},
        'batch_stats': {'mean': jnp.full(2, 7.0)},
    }


def optimizer():
    return optax.chain(optax.adam(1e-3), averaging.exponential_moving_average(0.9))


def test_a_new_state_stands_at_step_0_with_the_given_variables():
    state = create_state(variables(), optimizer())
    assert state.step == 0
    assert state.step.dtype == jnp.int32
    jax.tree.map(np.testing.assert_array_equal, state.variables, variables())


def test_donating_the_state_leaves_the_callers_variables_alone():
    given = variables()
    state = create_state(given, optimizer())
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)  # no buffer is in the state twice
    jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, given, variables())
