"""Loss and Dice of the validation images, while training goes on."""

from collections.abc import Iterable
from typing import Any

import jax

from pneumojax.system.devices import Devices
from pneumojax.training.steps import Batch, EvalStep


def validate(
    eval_step: EvalStep, variables: Any, batches: Iterable[Batch], devices: Devices
) -> dict[str, Any]:
    """Means over all images, of the last weights, at `image_size`, without flips.

    Args:
      eval_step: compiled, see `steps.make_eval_step`.
      variables: of the network, on the devices.
      batches: on the devices, padded to equal size.
      devices: that hold them.

    Returns:
      loss, dice (hard, at 0.5), and positive_dice: None where no image is positive.
    """
    sums = None
    for batch in batches:
        new = eval_step(variables, batch)
        sums = new if sums is None else jax.tree.map(lambda a, b: a + b, sums, new)
    totals = {name: float(value) for name, value in devices.unreplicate(sums).items()}
    images = totals['images']
    if 'dice' not in totals:
        return {'loss': totals['loss'] / images}
    positives = totals['positives']
    return {
        'loss': totals['loss'] / images,
        'dice': totals['dice'] / images,
        'positive_dice': totals['positive_dice'] / positives if positives else None,
    }
