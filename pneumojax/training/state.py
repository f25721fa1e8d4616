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
    seed: Any  # uint32 [], of the augmentation
    params: Any  # float32 pytree
    batch_stats: Any  # float32 pytree: running means and variances
    opt_state: optax.OptState  # includes the averaged weights, see `averaging`

    @property
    def variables(self) -> dict[str, Any]:
        """What the network's `apply` takes."""
        return {'params': self.params, 'batch_stats': self.batch_stats}


def create_state(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, seed: int = 0
) -> TrainState:
    """A state at step 0. It copies the variables: a training step donates its state's buffers.

    Args:
      variables: `params` and `batch_stats` of the network.
      optimizer: initializes `opt_state` for these parameters.
      seed: of the augmentation, taken modulo 2^32. It is part of the state, not of the training
        step, so that runs that differ only in their seed share one compiled step.
    """
    variables = jax.tree.map(jnp.array, variables)
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        seed=jnp.asarray(seed % 2**32, jnp.uint32),
        params=variables['params'],
        batch_stats=variables['batch_stats'],
        opt_state=optimizer.init(variables['params']),
    )
