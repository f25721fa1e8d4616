"""JAX as a runtime: members that need the same compiled function share it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pneumojax.models import build, tta
from pneumojax.runtimes.choose import Network
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.system.devices import Devices


class Jax:
    """Splits every batch over all local devices.

    Args:
      precision: 'float32', 'bfloat16', or 'auto' for each run's `model.dtype`.
    """

    name = 'jax'

    def __init__(self, precision: str = 'auto'):
        self.precision = 'as trained' if precision == 'auto' else precision
        self._dtype = None if precision == 'auto' else precision
        self._devices = Devices()
        self._batch_size = self._devices.count
        self._compiled: dict[Any, Any] = {}

    def batch_size(self, wanted: int) -> int:
        """Rounds a batch size up to a multiple of the devices; every batch is padded to it."""
        self._batch_size = self._devices.padded(wanted)
        return self._batch_size

    def network(self, member: Member) -> Network:
        """Loads a member's variables onto the devices.

        Raises:
          UsageError: the member is an exported network.
        """
        variables = self._devices.replicate(member.variables())
        function = self._compile(member)

        def start(images: np.ndarray) -> Callable[[], np.ndarray]:
            padded = np.zeros((self._batch_size, *images.shape[1:]), np.uint8)
            padded[: len(images)] = images
            result = function(variables, self._devices.shard(padded))
            return lambda: self._devices.gather(result)[: len(images)]

        return start

    def _compile(self, member: Member) -> Any:
        config = member.config.copy_and_resolve_references()
        if self._dtype:
            config.model.dtype = self._dtype
        key = (config.image_size, member.flips, str(config.model))
        if key not in self._compiled:
            function = tta.make_predict(config, build.make_model(config), member.flips)
            name = tta.describe(config, member.flips)
            self._compiled[key] = self._devices.compile(function, name)
        return self._compiled[key]
