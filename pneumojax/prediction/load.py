"""A trained run as a function of one image, for use from Python."""

import os

import numpy as np
from jaxtyping import Float32, UInt8

from pneumojax.data import geometry
from pneumojax.data.files import dicom
from pneumojax.evaluation import rules
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.runs.run import Run


class Predictor:
    """What `load` returns: call it with an image to get the probability of every pixel.

    Attributes:
      rule: makes masks of probabilities; chosen when the run was evaluated.
    """

    def __init__(self, ensemble: Ensemble):
        self._ensemble = ensemble
        self.rule = ensemble.rule

    def __call__(self, image: np.ndarray, aspect: float = 1.0) -> Float32[np.ndarray, 'H W']:
        """Predicts one radiograph, exactly as `--mode=predict` does.

        Args:
          image: uint8 or uint16 [H, W] of any size, larger is brighter (MONOCHROME2). uint16 counts
            from 0 (black) to 65535 (white), as `read_dicom` returns it: scale 12-bit data first.
          aspect: height of a pixel over its width.

        Returns:
          float32 [H, W] in [0, 1].

        Raises:
          ValueError: another shape or dtype.
        """
        image = np.asarray(image)
        if image.ndim != 2 or not image.size:
            raise ValueError(
                f'the image has shape {image.shape}: expected one grey image, [height, width]'
            )
        if image.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f'the image is {image.dtype}: expected uint8 (0 to 255) or uint16 (0 to 65535)'
            )
        if not 0 < aspect < np.inf:
            raise ValueError(f'aspect is {aspect}: expected a positive number')
        pixels = dicom.to_uint8(image)
        squares = {size: geometry.fit_image(pixels, size, aspect) for size in self._ensemble.sizes}
        batch = self._ensemble.predict({size: square[None] for size, square in squares.items()})
        predicted = {size: square[0] for size, square in batch.items()}
        return self._ensemble.probability(squares, predicted, image.shape, aspect)[0]

    def mask(self, probability: Float32[np.ndarray, 'H W']) -> UInt8[np.ndarray, 'H W']:
        """The mask that `--mode=predict` writes: `rule` applied to what a call returned; 0 or 1."""
        return rules.apply(self.rule, probability)


def load(run: str | os.PathLike, *, runtime: str = 'auto', precision: str = 'auto') -> Predictor:
    """Loads a trained and evaluated run.

    Weights, image size and flips are those that the run was evaluated with. The folds of a k-fold
    training are averaged.

    Args:
      run: a run directory, or a folder that `save_pretrained` or `--mode=export --format=onnx`
        wrote. Nothing is fetched.
      runtime: 'auto', 'jax', 'openvino' or 'onnxruntime', as `--runtime`.
      precision: as `--precision`.

    Returns:
      A function, `predict(image, aspect=1.0)`, that gives what `--mode=predict` computes: float32
      [H, W] probabilities of uint8 or uint16 [H, W], such as `read_dicom` returns (larger is
      brighter, uint16 over 0..65535). `aspect` is the height of a pixel over its width.
      `predict.mask(probability)` gives the mask, by the thresholds that the evaluation chose.

    Raises:
      UsageError: the run is not trained or not evaluated, or the runtime is not available.
    """
    return Predictor(Ensemble([Run(run)], runtime, precision, images=1))
