"""Blocks of an image that a network is to restore, hidden from it: learning without labels.

Hiding part of an image and asking for it is masked-image modelling (He et al. 2021, "Masked
Autoencoders Are Scalable Vision Learners", arXiv 2111.06377; for U-Nets and radiology Zhou et al.
2019, "Models Genesis", arXiv 1908.06912).
"""

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Int, Key

# Of an example's keys, the one after those that `augment.augment` draws from.
_KEY = 3


def hide_batch(
    key: Key[Array, ''],
    examples: Int[Array, ' B'],
    images: Float[Array, 'B H W 1'],
    config: ml_collections.ConfigDict,
) -> tuple[Float[Array, 'B H W 1'], Bool[Array, 'B H W 1']]:
    """Hides blocks of a batch, drawn by one key per example, as in `augment.augment_batch`.

    Args:
      key: PRNG key of this step, the same that the augmentation gets.
      examples: index of each example in the data set.
      images: float32 in [0, 1].
      config: `config.augment`; `hide` and `hide_blocks` are read.

    Returns:
      (images, hidden): the images, with each hidden pixel as bright as its image is on average, and
      which pixels these are.
    """
    _, height, width, _ = images.shape

    def blocks_of(example: Int[Array, '']) -> Bool[Array, 'H W']:
        own = jax.random.fold_in(jax.random.fold_in(key, example), _KEY)
        return random_blocks(own, (height, width), share=config.hide, blocks=config.hide_blocks)

    hidden = jax.vmap(blocks_of)(examples)[..., None]
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return jnp.where(hidden, mean, images), hidden


def random_blocks(
    key: Key[Array, ''], shape: tuple[int, int], *, share: float, blocks: int
) -> Bool[Array, 'H W']:
    """Draws blocks of a grid, always the same number of them.

    Args:
      key: PRNG key.
      shape: H and W, each at least `blocks`.
      share: of the blocks, above 0 and below 1; rounded to whole blocks. At least one is hidden,
        and at least one is not.
      blocks: per side of the grid, 2 or more.
    """
    numbers = jax.random.uniform(key, (blocks * blocks,))
    count = min(max(1, round(share * len(numbers))), len(numbers) - 1)
    rank = jnp.argsort(jnp.argsort(numbers))
    grid = (rank < count).reshape(blocks, blocks)
    rows, columns = (jnp.arange(side) * blocks // side for side in shape)
    return grid[rows][:, columns]
