"""Batches of uint8 arrays from the cache, by Grain.

`MapDataset` gives random access by position, so the batch of a step is a function of the step:
nothing has to be saved to resume, and worker counts cannot change the order.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np

from pneumojax.data.cache.records import Records
from pneumojax.data.sampling import Plan

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one of `count` processes reads, 1 / count of its rows."""

    index: int = 0
    count: int = 1

    def of(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """The share of rows [num_batches * batch_size]: [num_batches, batch_size // count]."""
        size = batch_size // self.count
        return rows.reshape(-1, batch_size)[:, self.index * size : (self.index + 1) * size]


class _Fetch:
    """Maps a position to an example. A class, so that worker processes can receive it."""

    def __init__(self, records: Records | None, order: np.ndarray):
        self.records, self.order = records, order

    def __call__(self, position: int) -> dict[str, Any]:
        index = self.order[position]
        if self.records is None:
            return {'example': np.int32(index)}
        image, mask = self.records[index]
        return {'image': image, 'mask': mask, 'example': np.int32(index)}


def train_batches(
    records: Records | None,
    train: np.ndarray,
    plan: Plan,
    *,
    start_step: int = 0,
    workers: int = 0,
    share: Share | None = None,
) -> Iterator[Batch]:
    """Yields the training batches from `start_step` to the end of the plan.

    Args:
      records: the cache; None to leave image and mask out.
      train: int [N], records that the plan's indices refer to.
      plan: the order of the whole run.
      start_step: steps already done.
      workers: processes that read; 0 reads in threads.
      share: of every batch; None for that of this process in `jax.distributed`.

    Yields:
      image uint8 [b, S, S], mask uint8 [b, S, S] of 0 and 1, example int32 [b] (record index),
      where b is the plan's batch size divided by the number of processes.
    """
    share = share or Share(jax.process_index(), jax.process_count())
    order = share.of(train[plan.order], plan.batch_size)[start_step:]
    if not order.size:
        return iter(())
    batches = _batches(records, order)
    if not workers:
        return iter(batches.to_iter_dataset(_threads(8)))
    _parse_flags_for_grain()
    options = grain.MultiprocessingOptions(num_workers=workers)
    return iter(batches.to_iter_dataset(_threads(16)).mp_prefetch(options))


def evaluation_batches(
    records: Records | None,
    indices: Sequence[int] | np.ndarray,
    batch_size: int,
    *,
    share: Share | None = None,
) -> Iterator[Batch]:
    """Yields all given records once, in order. The last batch is padded; `valid` marks real rows.

    Args:
      records: the cache; None to leave image and mask out.
      indices: int [N], which records.
      batch_size: B, over all processes; a multiple of their number.
      share: of every batch; None for all of it. All shares have the same number of batches.

    Yields:
      image uint8 [b, S, S], mask uint8 [b, S, S], example int32 [b], valid bool [b], where b is
      the share of B.
    """
    indices, share = np.asarray(indices, np.int32), share or Share()
    padded = np.resize(indices, -(-len(indices) // batch_size) * batch_size)
    valid = share.of(np.arange(len(padded)) < len(indices), batch_size)
    batches = _batches(records, share.of(padded, batch_size)).to_iter_dataset(_threads(4))
    for i, batch in enumerate(batches):
        yield batch | {'valid': valid[i]}


def _batches(records: Records | None, order: np.ndarray) -> grain.MapDataset:
    """Batches of the records in `order` [num_batches, batch size]."""
    fetch = _Fetch(records, order.reshape(-1))
    return grain.MapDataset.range(order.size).map(fetch).batch(order.shape[1])


def _threads(prefetched: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=4, prefetch_buffer_size=prefetched)


def _parse_flags_for_grain() -> None:
    """Grain's worker processes read absl flags, which pytest and notebooks never parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(['pneumojax'], known_only=True)
