"""Which training image comes when: the order of every epoch, as a function of the seed alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """The whole training run, laid out before it starts.

    A step's batch is `order[step * batch_size : (step + 1) * batch_size]`, so a resumed run knows
    its position from the step alone.
    """

    order: np.ndarray  # int32 [total_steps * batch_size], indices into the training images
    epoch_ends: np.ndarray  # int32 [num_epochs], steps done when each epoch ends
    batch_size: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return int(self.epoch_ends[-1])

    def epoch(self, step: int) -> int:
        """The epoch (from 0) that a step (from 0) belongs to."""
        return int(np.searchsorted(self.epoch_ends, step, side='right'))


def positive_share_at(epoch: int, num_epochs: int, shares: Sequence[float]) -> float | None:
    """The share of positives in an epoch: `shares` divide the epochs into equal parts."""
    if not shares:
        return None
    return shares[min(len(shares) - 1, epoch * len(shares) // num_epochs)]


def epoch_order(
    rng: np.random.Generator, positive: np.ndarray, positive_share: float | None
) -> np.ndarray:
    """Indices of one epoch, shuffled.

    Args:
      rng: consumed.
      positive: bool [N], which images have a pneumothorax.
      positive_share: None for every image once. A share p takes all n positives and
        n (1 - p) / p random negatives, at most all of them (W: sneddy's sliding sampling).
    """
    everyone = np.arange(len(positive))
    if positive_share is None or not positive.any():
        return rng.permutation(everyone)
    positives, negatives = everyone[positive], everyone[~positive]
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
    """Lays out all epochs. Each is cut to whole batches; the images left out differ every time.

    An epoch smaller than a batch is repeated to fill one.
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
