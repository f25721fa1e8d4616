"""JAX as a runtime: members that need the same compiled function share it."""

import functools
from typing import Any

from pneumojax.models import build, tta
from pneumojax.runtimes.choose import Network
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.system.device_memory import InFittingBatches
from pneumojax.system.devices import Devices


class Jax:
    """Splits every batch over all local devices.

    Args:
      precision: 'float32' or 'bfloat16'; or 'auto' for each run's `model.dtype`, where a GPU or TPU
        multiplies float32 as it does by default (see `tta.make_predict`).
    """

    name = 'jax'

    def __init__(self, precision: str = 'auto'):
        self.precision = 'as trained' if precision == 'auto' else precision
        self._dtype = None if precision == 'auto' else precision
        self._devices = Devices()
        self._batch_size = self._devices.count
        self._compiled: dict[Any, InFittingBatches] = {}

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
        return functools.partial(self._compile(member).start, variables)

    def _compile(self, member: Member) -> InFittingBatches:
        config, exact = member.config.copy_and_resolve_references(), self._dtype == 'float32'
        if self._dtype:
            config.model.dtype = self._dtype
        key = (config.image_size, member.flips, str(config.model))
        if key not in self._compiled:
            function = tta.make_predict(config, build.make_model(config), member.flips, exact)
            name = tta.describe(config, member.flips)
            self._compiled[key] = InFittingBatches(
                self._devices, self._devices.compile(function, name), self._batch_size
            )
        return self._compiled[key]
