"""The order of the training images in every epoch, a function of the seed alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """The order of the images in a whole training run.

    The batch of a step is `order[step * batch_size : (step + 1) * batch_size]`, so a resumed run
    needs only the step to continue.
    """

    order: np.ndarray  # int32 [total_steps * batch_size], indices into the training images
    epoch_ends: np.ndarray  # int32 [num_epochs], steps done at the end of each epoch
    batch_size: int

    @property
    def total_steps(self) -> int:
        """The number of steps in the whole run."""
        return int(self.epoch_ends[-1])

    def epoch(self, step: int) -> int:
        """The epoch (from 0) that a step (from 0) belongs to."""
        return int(np.searchsorted(self.epoch_ends, step, side='right'))


def positive_share_at(epoch: int, num_epochs: int, shares: Sequence[float]) -> float | None:
    """The share of positives in an epoch; `shares` divides the epochs into equal parts."""
    if not shares:
        return None
    return shares[min(len(shares) - 1, epoch * len(shares) // num_epochs)]


def epoch_order(
    rng: np.random.Generator, positive: np.ndarray, positive_share: float | None
) -> np.ndarray:
    """Draws the shuffled indices of one epoch.

    Args:
      rng: source of randomness, advanced.
      positive: bool [N], which images have a pneumothorax.
      positive_share: None for every image once. A share p takes all n positives and
        n (1 - p) / p random negatives, at most all of them (W: sneddy's sliding sampling).
    """
    every = np.arange(len(positive))
    if positive_share is None or not positive.any():
        return rng.permutation(every)
    positives, negatives = every[positive], every[~positive]
    wanted = round(len(positives) * (1 - positive_share) / positive_share)
    chosen = rng.permutation(negatives)[: min(wanted, len(negatives))]
    return rng.permutation(np.concatenate([positives, chosen]))


def make_plan(
    positive: np.ndarray,
    *,
    num_epochs: int,
    batch_size: int,
    seed: int,
    positive_share: Sequence[float] = (),
) -> Plan:
    """Plans all epochs. Each is cut to whole batches; the images left out differ between epochs.

    An epoch smaller than a batch is repeated to fill one.

    Args:
      positive: bool [N], which training images have a pneumothorax.
      num_epochs: 1 or more.
      batch_size: of all processes together.
      seed: of the order; epoch i uses the generator seeded with [seed, i].
      positive_share: see `positive_share_at` and `epoch_order`; empty to use every image once.
    """
    orders, ends, steps = [], [], 0
    for epoch in range(num_epochs):
        rng = np.random.default_rng([seed, epoch])
        share = positive_share_at(epoch, num_epochs, positive_share)
        order = epoch_order(rng, np.asarray(positive, bool), share)
        epoch_steps = max(1, len(order) // batch_size)
        orders.append(np.resize(order, epoch_steps * batch_size).astype(np.int32))
        steps += epoch_steps
        ends.append(steps)
    return Plan(np.concatenate(orders), np.asarray(ends, np.int32), batch_size)
