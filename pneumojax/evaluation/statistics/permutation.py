"""Whether groups differ: permutations of labels between patients, and the largest of many tests."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int


def permutations(
    rng: np.random.Generator, patients: Sequence[str], positive: Bool[np.ndarray, ' N'], count: int
) -> Iterator[Int[np.ndarray, 'S N']]:
    """Exchanges of whole patients with as many positive and as many negative images.

    All labels of an image move together, so how groupings depend on each other is kept, and so are
    the numbers of positive and of negative images in every group.

    Args:
      rng: draws them.
      patients: [N], the patient of each image.
      positive: images with pneumothorax; they are exchanged among themselves.
      count: how many permutations.

    Yields:
      int64 [<=100, N]: for each image, the one whose labels it gets.
    """
    number = np.unique(patients, return_inverse=True)[1]
    kinds = np.stack([np.bincount(number, positive), np.bincount(number, ~positive)], axis=1)
    order = np.lexsort((~positive, number))
    blocks = np.split(order, np.cumsum(np.bincount(number))[:-1])
    alike = np.unique(kinds, axis=0, return_inverse=True)[1].ravel()
    strata = [np.stack([blocks[p] for p in np.flatnonzero(alike == k)]) for k in np.unique(alike)]
    for start in range(0, count, 100):
        rows = min(100, count - start)
        source = np.empty((rows, len(number)), np.int64)
        for stratum in strata:
            drawn = np.argsort(rng.random((rows, len(stratum))), axis=1)
            source[:, stratum.ravel()] = stratum[drawn].reshape(rows, -1)
        yield source


def p_values(
    observed: Float64[np.ndarray, ' K'], permuted: Float64[np.ndarray, 'S K']
) -> tuple[Float64[np.ndarray, ' K'], Float64[np.ndarray, ' K']]:
    """Two-sided p-values of K statistics, each alone and with all of them in mind.

    Each statistic is standardised by its permutations. The adjusted p-value is the share of
    permutations whose largest statistic is as large: with a threshold of 0.01, a false alarm is
    raised by one family of K in a hundred (Westfall and Young 1993, single step).

    Args:
      observed: finite.
      permuted: finite, of S permutations.

    Returns:
      (unadjusted, adjusted), at least 1 / (S + 1).
    """
    everything = np.concatenate([observed[None], permuted])
    spread = everything.std(axis=0)
    apart = np.abs(everything - everything.mean(axis=0))
    size = np.where(spread > 1e-12, apart / np.maximum(spread, 1e-12), 0)
    reached = size[0] - 1e-9  # equal values differ by rounding errors
    alone = (size >= reached).mean(axis=0)
    return alone, (size.max(axis=1)[:, None] >= reached).mean(axis=0)
