"""The network that a configuration describes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax import Array

from pneumojax.errors import UsageError
from pneumojax.models.unet import CLASSIFICATION_HEAD, UNet
from pneumojax.system.memoize import memoize


def make_model(config: ml_collections.ConfigDict, axis_name: str | None = None) -> UNet:
    """The network of `config.model`.

    Args:
      config: the whole configuration.
      axis_name: of the `pmap` over which batch statistics are synchronised, or None.

    Raises:
      UsageError: float64 without JAX's consent; it would silently be float32.
    """
    if config.model.dtype == 'float64' and not jax.config.read('jax_enable_x64'):
        raise UsageError(
            "config.model.dtype is 'float64': JAX needs JAX_ENABLE_X64=1 in the environment for it"
        )
    return UNet(
        encoder=config.model.encoder,
        width=config.model.width,
        stage_sizes=tuple(config.model.stage_sizes),
        dtype=jnp.dtype(config.model.dtype),
        axis_name=axis_name,
        classification_head=config.model.classification_head != 'none',
        gated=config.model.classification_head == 'gate',
        frozen_stages=config.model.frozen_stages,
    )


def overview(config: ml_collections.ConfigDict) -> str:
    """One line: how many parameters the network has, and how many of them each part."""
    counts = {
        part: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for part, tree in variable_shapes(config)['params'].items()
    }
    parts = sorted(counts, key=['encoder', 'decoder', 'head', CLASSIFICATION_HEAD].index)
    return f'{sum(counts.values()):,} parameters: ' + ', '.join(
        f'{part} {counts[part]:,}' for part in parts
    )


# LLVM would spend half a minute on making fast what draws each weight once.
_QUICK_COMPILATION = {
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
}


def initial_variables(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Random weights from `config.seed`; the statistics of BatchNorm are 0 and 1."""
    # Jitted: one compilation instead of hundreds of small ones.
    options = _QUICK_COMPILATION if jax.default_backend() == 'cpu' else None
    return jax.jit(_initializer(config), compiler_options=options)(jax.random.key(config.seed))


def variable_shapes(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What `initial_variables` returns, as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(_initializer(config), jax.random.key(config.seed))


@memoize('model')
def _initializer(config: ml_collections.ConfigDict) -> Callable[[Array], dict[str, Any]]:
    model = make_model(config)
    images = jnp.zeros((1, 32, 32, config.model.channels))  # no weight depends on the size

    def initialize(key: Array) -> dict[str, Any]:
        variables: Any = model.init(key, images, train=False)
        if config.model.dtype != 'float64':
            return variables
        return jax.tree.map(lambda x: x.astype(jnp.float64), variables)

    return initialize
