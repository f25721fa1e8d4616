"""Predicts in batches that fit in the memory of the devices."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from pneumojax.errors import UsageError
from pneumojax.system.devices import Devices
from pneumojax.system.progress import log


class InFittingBatches:
    """Calls a compiled function on a batch, in as many parts as the memory needs.

    What a program needs depends on the size, the flips, the dtype and the device. A TPU's compiler
    knows, a GPU knows when it runs. So it is tried: when memory runs out, the parts are halved,
    which then stays so.

    Args:
      devices: that share every part.
      function: what `Devices.compile` returned for a function of (variables, images [B, ...]).
      batch_size: images of a part at first.

    Attributes:
      batch_size: images of a part, a multiple of the devices. Shorter ones are padded with zeros,
        so the function is compiled once for each size.
    """

    def __init__(self, devices: Devices, function: Callable[[Any, Any], Any], batch_size: int):
        self.devices, self.function = devices, function
        self.batch_size = devices.padded(batch_size)

    def start(self, variables: Any, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Starts the computation; what it returns waits for the results.

        Args:
          variables: on every device, see `Devices.replicate`.
          images: [B, ...].

        Returns:
          A function that returns the results, [B, ...], in the order of the images.

        Raises:
          UsageError: not even one image a device fits.
        """
        size = self.batch_size
        try:
            started = [self._call(variables, part) for part in _parts(images, size)]
        except jax.errors.JaxRuntimeError as error:
            self._halve(size, error)
        else:
            return functools.partial(self._wait, started, variables, images, size)
        return self.start(variables, images)

    def _call(self, variables: Any, part: np.ndarray) -> Any:
        return self.function(variables, self.devices.shard(part))

    def _wait(
        self, started: list[Any], variables: Any, images: np.ndarray, size: int
    ) -> np.ndarray:
        try:
            results = [self.devices.gather(part) for part in started]
        except jax.errors.JaxRuntimeError as error:  # devices may report it only now
            self._halve(size, error)
        else:
            return np.concatenate(results)[: len(images)]
        started.clear()  # the others' memory is needed
        return self.start(variables, images)()

    def _halve(self, size: int, error: jax.errors.JaxRuntimeError) -> None:
        """After an error of a part of that size. Any error but a lack of memory is raised again."""
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise error
        if size == self.devices.total:
            raise UsageError(
                'the memory of a device is too small for a single image; give a run with a smaller '
                f'image_size, or JAX_PLATFORMS=cpu to use the processor ({error})'
            ) from None
        if size == self.batch_size:  # else another call has halved it already
            self.batch_size = self.devices.padded(size // 2)
            log.info(
                '%d images at once do not fit in the memory of the device; predicting %d at a time',
                size, self.batch_size,
            )  # fmt: skip


def _parts(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Parts of exactly `size` images, the last one padded with zeros."""
    for first in range(0, len(images), size):
        part = images[first : first + size]
        yield np.pad(part, [(0, size - len(part)), *[(0, 0)] * (images.ndim - 1)])
