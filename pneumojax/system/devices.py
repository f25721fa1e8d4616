"""The one place that tells one device from several: `jax.jit` for one, `jax.pmap` for several.

Nothing else in the package needs to know how many devices there are, or in how many processes.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pneumojax.errors import UsageError
from pneumojax.system.progress import waiting

AXIS = 'batch'


def local_devices() -> list[jax.Device]:
    """The devices of this process.

    Raises:
      UsageError: JAX_PLATFORMS names devices that are not here, not installed, or misspelt.
    """
    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the second where a plugin is not installed
        if not (named := os.environ.get('JAX_PLATFORMS')):
            raise
        reason = str(error).partition(' (set JAX_PLATFORMS')[0]
        raise UsageError(
            f'JAX_PLATFORMS={named}: JAX finds no such device here{reason and f" ({reason})"}; '
            "unset it, or install what the device needs: pip install 'pneumojax[cuda]' or "
            "'pneumojax[tpu]'"
        ) from None


class Devices:
    """The devices that share every batch.

    Args:
      count: how many local devices to use; None for all.
      all_processes: use all devices of all processes. Each process then calls the compiled
        functions at the same time, with its share of the batch.
    """

    def __init__(self, count: int | None = None, *, all_processes: bool = False):
        self.devices = local_devices()[:count]
        self.num_processes = jax.process_count() if all_processes else 1

    @property
    def count(self) -> int:
        """Devices of this process."""
        return len(self.devices)

    @property
    def total(self) -> int:
        """Devices of all processes together."""
        return self.count * self.num_processes

    @property
    def _mapped(self) -> list | None:
        """The `devices` argument of `pmap`; None with several processes, for all devices of all."""
        return self.devices if self.num_processes == 1 else None

    @property
    def axis_name(self) -> str | None:
        """The axis name for `lax.pmean` and BatchNorm; None on a single device."""
        return AXIS if self.total > 1 else None

    def check_batch_size(self, key: str, batch_size: int) -> None:
        """Raises UsageError unless the devices of all processes can share a batch equally."""
        if batch_size % self.total:
            raise UsageError(
                f'config.{key} is {batch_size}: expected a multiple of the {self.total} devices'
            )

    def padded(self, batch_size: int) -> int:
        """The next batch size that all devices can share equally."""
        return -(-batch_size // self.total) * self.total

    def compile(self, function: Callable, name: str, donate: tuple[int, ...] = ()) -> Callable:
        """Compiles a pure function of (replicated ..., sharded batch) at its first call.

        Args:
          function: built for this `axis_name`.
          name: what the user is told is being compiled.
          donate: positions of arguments whose buffers may be reused.
        """
        if self.axis_name is None:
            compiled = jax.jit(function, donate_argnums=donate)
        else:
            compiled = jax.pmap(function, AXIS, devices=self._mapped, donate_argnums=donate)
        called = False

        def call(*args: Any) -> Any:
            nonlocal called
            if called:
                return compiled(*args)
            with waiting(f'compiling {name}'):
                called = True
                return compiled(*args)

        return call

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of a pytree on every device; several devices get a leading axis."""
        if self.axis_name is None:  # a real copy: donating it must not delete the original
            return jax.device_put(tree, self.devices[0], may_alias=False)
        return jax.pmap(lambda x: x, devices=self._mapped)(
            jax.tree.map(lambda x: np.broadcast_to(x, (self.count, *np.shape(x))), tree)
        )

    def unreplicate(self, tree: Any) -> Any:
        """One copy of a replicated pytree, as numpy arrays."""
        if self.axis_name is None:
            return jax.device_get(tree)
        # Numbers become arrays, not numpy scalars: Orbax saves no scalars.
        return jax.tree.map(lambda x: np.asarray(np.asarray(x.addressable_data(0))[0]), tree)

    def shard(self, batch: Any) -> Any:
        """Splits a batch [B, ...] over the devices. The transfer goes on in the background."""
        if self.axis_name is None:
            return jax.device_put(batch, self.devices[0])
        batch = jax.tree.map(lambda x: x.reshape(self.count, -1, *x.shape[1:]), batch)
        if self._mapped is None:  # each process has only its share, which `pmap` puts in place
            return batch
        # pmap itself would wait for the transfer before starting anything.
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        return jax.device_put(
            batch, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        )

    def memory(self) -> int | None:
        """Bytes of memory of the smallest device; None where that is unknown, as on a CPU."""
        limits = [(d.memory_stats() or {}).get('bytes_limit', 0) for d in self.devices]
        return min(limits) or None

    def gather(self, tree: Any) -> Any:
        """The inverse of `shard` for results: numpy arrays [B, ...] in the order of the batch."""
        tree = jax.device_get(tree)
        if self.axis_name is None:
            return tree
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
