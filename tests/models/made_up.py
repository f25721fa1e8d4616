"""Variables of the shapes that a module has, drawn by numpy: compiling `init` takes far longer."""

import jax
import jax.numpy as jnp
import numpy as np


def shapes(model, channels=3):
    """What `model.init` would return, as shapes and types."""
    x = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)


def variables(model, channels=3, seed=0):
    """Random kernels of a sensible size; BatchNorm as it starts: scale 1, bias 0, mean 0, var 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == 'kernel':
            fan_in = np.prod(leaf.shape[:-1])
            return (rng.standard_normal(leaf.shape) * (2 / fan_in) ** 0.5).astype(np.float32)
        return np.full(leaf.shape, name in ('scale', 'var'), np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(model, channels))
