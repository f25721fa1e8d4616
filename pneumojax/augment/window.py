"""Windows cut from images: trained on small, predicted on whole."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def random_window(
    key: Key[Array, ''],
    image: Float[Array, 'H W'],
    mask: Float[Array, 'H W'],
    *,
    size: int,
    on_lesion: float = 0.0,
) -> tuple[Float[Array, '{size} {size}'], Float[Array, '{size} {size}']]:
    """Cuts out a window, anywhere in the image or over a pixel of the mask.

    Windows drawn anywhere see the middle of an image more often than its borders, so few of them
    hold a lesion at the edge of the lung. Over the mask, a pixel of it is drawn, then one of all
    the windows that contain this pixel, so that lesions do not end up in the centre.

    Args:
      key: PRNG key.
      image: float32 in [0, 1].
      mask: float32 in {0, 1}.
      size: side of the window, at most H and W.
      on_lesion: probability of a window over the mask, where it is not empty.

    Returns:
      (image, mask), the pixels as they were.
    """
    place_key, pixel_key, kind_key = jax.random.split(key, 3)
    height, width = mask.shape
    room = jnp.array([height - size, width - size])
    low, high = jnp.zeros_like(room), room
    if on_lesion:
        count = jnp.cumsum(mask.reshape(-1))  # exact in float32 up to 4096 x 4096
        drawn = jnp.floor(jax.random.uniform(pixel_key) * count[-1])
        index = jnp.searchsorted(count, drawn, side='right')
        pixel = jnp.stack(jnp.divmod(index, width))
        over = (jax.random.uniform(kind_key) < on_lesion) & (count[-1] > 0)
        low = jnp.where(over, jnp.maximum(low, pixel - size + 1), low)
        high = jnp.where(over, jnp.minimum(high, pixel), high)
    corner = jax.random.randint(place_key, (2,), low, high + 1)

    def cut(x: Array) -> Array:
        return jax.lax.dynamic_slice(x, corner, (size, size))

    return cut(image), cut(mask)
