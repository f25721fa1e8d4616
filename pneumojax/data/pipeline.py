"""Batches of uint8 arrays from the cache, by Grain.

`MapDataset` gives random access by position, so the batch of a step is a function of the step:
nothing has to be saved to resume, and worker counts cannot change the order.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np

from pneumojax.data.cache.records import Records
from pneumojax.data.sampling import Plan

Batch = dict[str, np.ndarray]


class _Fetch:
    """Position in an order -> one example. A class, so that worker processes can receive it."""

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
    process_index: int | None = None,
    process_count: int | None = None,
) -> Iterator[Batch]:
    """This process's share of the training batches from `start_step` to the end of the plan.

    Args:
      records: the cache; None to leave image and mask out.
      train: int [N], records that the plan's indices refer to.
      plan: the order of the whole run.
      start_step: steps already done.
      workers: reading processes; 0 reads with threads.
      process_index, process_count: of `jax.distributed`, by default this process's.

    Yields:
      image uint8 [b, S, S], mask uint8 [b, S, S] of 0 and 1, example int32 [b] (record index),
      where b is the plan's batch size divided by the number of processes.
    """
    index = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if process_count is None else process_count
    share = plan.batch_size // count
    # Rows of a step: process 0 takes the first share of the global batch, and so on.
    order = train[plan.order].reshape(-1, plan.batch_size)[start_step:]
    order = order[:, index * share : (index + 1) * share].reshape(-1)
    if not len(order):
        return iter(())
    dataset = grain.MapDataset.range(len(order)).map(_Fetch(records, order)).batch(share)
    if workers:
        _parse_flags_for_grain()
        iterable = dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
        )
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    else:
        iterable = dataset.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    return iter(iterable)


def evaluation_batches(
    records: Records | None,
    indices: Sequence[int] | np.ndarray,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """All given records once, in order. The last batch is padded; `valid` says which rows count.

    Args:
      records: the cache.
      indices: int [N], which records.
      batch_size: B, of all processes together; a multiple of their number.
      process_index, process_count: by default one process reads everything; of several each reads
        its share of every batch, and all have the same number of batches.

    Yields:
      image uint8 [b, S, S], mask uint8 [b, S, S], example int32 [b], valid bool [b], where b is
      this process's share of B.
    """
    indices, share = np.asarray(indices, np.int32), batch_size // process_count
    padded = np.resize(indices, -(-len(indices) // batch_size) * batch_size)
    valid = np.arange(len(padded)) < len(indices)
    mine = slice(process_index * share, (process_index + 1) * share)
    padded = padded.reshape(-1, batch_size)[:, mine].reshape(-1)
    valid = valid.reshape(-1, batch_size)[:, mine]
    dataset = grain.MapDataset.range(len(padded)).map(_Fetch(records, padded)).batch(share)
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)
    for i, batch in enumerate(dataset.to_iter_dataset(options)):
        yield batch | {'valid': valid[i]}


def _parse_flags_for_grain() -> None:
    """Grain's worker processes read absl flags, which pytest and notebooks never parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(['pneumojax'], known_only=True)
