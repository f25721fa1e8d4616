"""Overlays of a few validation images for TensorBoard, each time that the run is validated."""

from typing import Any

import jax
import ml_collections
import numpy as np

from pneumojax.data.dataset import Dataset
from pneumojax.drawing import overlay
from pneumojax.models import build, tta
from pneumojax.system.progress import waiting

SIDE = 256  # pixels of a picture, at most: some 10 kB as JPEG


def choose(positive: np.ndarray, validation: np.ndarray, count: int) -> np.ndarray:
    """The images to show: the same whenever they are chosen, those with a pneumothorax first.

    Args:
      positive: bool, which images of the data set have a pneumothorax.
      validation: int [V], indices of the held-out images.
      count: how many, or all if there are fewer.
    """
    return validation[np.argsort(~positive[validation], kind='stable')][:count]


class ValidationPictures:
    """Draws a few fixed validation images, with what the network marks on them at 0.5.

    Args:
      config: of one run with masks to learn; `evaluation.pictures` says how many images.
      dataset: of the run.
    """

    def __init__(self, config: ml_collections.ConfigDict, dataset: Dataset):
        chosen = choose(dataset.positive, dataset.validation, config.evaluation.pictures)
        records = [dataset.records[int(index)] for index in chosen]
        self._images = np.stack([record[0] for record in records])
        self._masks = [record[1] for record in records]
        self._predict = jax.jit(tta.make_predict(config, build.make_model(config), ()))
        self._compiled = False

    def draw(self, variables: Any) -> list[np.ndarray]:
        """The pictures, uint8 RGB [H, W, 3], of a network whose variables are in host memory."""
        if self._compiled:
            probabilities = self._predict(variables, self._images)
        else:
            with waiting('compiling the pictures for TensorBoard'):
                probabilities = self._predict(variables, self._images)
                self._compiled = True
        side = min(SIDE, self._images.shape[1])
        return [
            overlay.overlay(image, probability >= 0.5, mask, side=side)
            for image, probability, mask in zip(
                self._images, np.asarray(probabilities), self._masks, strict=True
            )
        ]
