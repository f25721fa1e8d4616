"""The network that a configuration describes."""

from typing import Any

import jax
import jax.numpy as jnp

from pneumojax.models.unet import UNet


def make_model(config, axis_name: str | None = None) -> UNet:
    """The network of `config.model`.

    Args:
      config: the whole configuration.
      axis_name: of the `pmap` over which batch statistics are synchronised, or None.
    """
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


def variable_shapes(config) -> dict[str, Any]:
    """What `initial_variables` returns, as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(lambda: initial_variables(config))
