"""Everything that training changes, as one pytree, and how it starts."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from pneumojax.models.unet import UNet


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


def make_model(config, axis_name: str | None = None) -> UNet:
    """The network that `config.model` describes."""
    return UNet(
        width=config.model.width,
        stage_sizes=tuple(config.model.stage_sizes),
        dtype=jnp.dtype(config.model.dtype),
        axis_name=axis_name,
    )


def initial_variables(config) -> dict[str, Any]:
    """Random weights from `config.seed`; the statistics of BatchNorm are 0 and 1."""
    model = make_model(config)
    # Jitted: one compilation instead of hundreds of small ones. The size does not matter here.
    images = jnp.zeros((1, 32, 32, config.model.channels))
    return jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(config.seed))


def create_state(variables: dict[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0 from given variables, whose buffers stay the caller's."""
    variables = jax.tree.map(jnp.array, variables)  # a copy: the state's own will be donated
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables['params'],
        batch_stats=variables['batch_stats'],
        opt_state=optimizer.init(variables['params']),
    )
