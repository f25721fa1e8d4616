"""Everything that training changes, as one pytree, and how it starts."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """The state of training."""

    step: Any  # int32 [], batches done
    params: Any  # float32 pytree
    batch_stats: Any  # float32 pytree: running means and variances
    opt_state: optax.OptState  # with the averaged weights in it, see `averaging`

    @property
    def variables(self) -> dict[str, Any]:
        """What the network's `apply` takes."""
        return {'params': self.params, 'batch_stats': self.batch_stats}


def create_state(variables: dict[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0 from given variables, whose buffers stay the caller's."""
    variables = jax.tree.map(jnp.array, variables)  # a copy: the state's own will be donated
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables['params'],
        batch_stats=variables['batch_stats'],
        opt_state=optimizer.init(variables['params']),
    )
