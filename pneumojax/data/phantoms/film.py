"""A film on which anatomy is drawn at any size, with OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np

from pneumojax.data.phantoms.shapes import Strokes

FINE = 4  # bits of sub-pixel position given to OpenCV


class Film(NamedTuple):
    """Draws shapes, whose coordinates are fractions of the side, on 8-bit layers [size, size]."""

    size: int
    pose: np.ndarray  # [2, 3]
    scratch: np.ndarray  # float32 [size, size], reused: allocation would take half the time

    def blank(self) -> np.ndarray:
        """Returns an empty layer."""
        return np.zeros((self.size, self.size), np.uint8)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps anatomy to OpenCV's fixed-point coordinates of pixel centres."""
        pixels = (points @ self.pose[:, :2].T + self.pose[:, 2]) * self.size - 0.5
        return np.rint(pixels * 2**FINE).astype(np.int32)

    def fill(self, *polygons: np.ndarray) -> np.ndarray:
        """Returns a layer with these polygons filled."""
        layer = self.blank()
        for polygon in polygons:
            self.paint(layer, polygon, 255)
        return layer

    def paint(self, layer: np.ndarray, polygon: np.ndarray, value: float) -> None:
        """Fills a polygon [n, 2] with a value of 0 to 255."""
        cv2.fillPoly(layer, [self.points(polygon)], value, cv2.LINE_AA, FINE)

    def stroke(
        self, layer: np.ndarray, curves: np.ndarray, width: float, value: float = 1.0
    ) -> np.ndarray:
        """Draws a curve [m, 2] or several [n, m, 2] in place and returns the layer.

        A line thinner than a pixel is drawn one pixel wide and fainter.
        """
        pixels = max(1, round(width * self.size))
        value *= min(1.0, width * self.size / pixels)
        lines = list(self.points(np.reshape(curves, (-1, *np.shape(curves)[-2:]))))
        cv2.polylines(layer, lines, False, 255 * value, pixels, cv2.LINE_AA, FINE)
        return layer

    def strokes(self, layer: np.ndarray, strokes: Strokes) -> np.ndarray:
        """Draws many lines, faint ones first, with brightness and width rounded to a few levels."""
        pixels = np.maximum(1, np.rint(strokes.widths * self.size)).astype(int)
        values = strokes.values * np.minimum(1, strokes.widths * self.size / pixels)
        kinds = np.rint(values * 16).astype(int) * 1000 + pixels
        points = self.points(strokes.curves)
        for kind in np.unique(kinds):
            value, width = divmod(int(kind), 1000)
            lines = list(points[kinds == kind])
            cv2.polylines(layer, lines, False, 255 * value / 16, width, cv2.LINE_AA, FINE)
        return layer

    def cover(self, polygon: np.ndarray) -> np.ndarray:
        """The share of each pixel that a polygon covers (0 to 255), sampled at 4 x 4 points.

        OpenCV's fill includes the outline, which would widen a thin crescent.
        """
        pixels = (polygon @ self.pose[:, :2].T + self.pose[:, 2]) * self.size
        low = np.clip(np.floor(pixels.min(axis=0)).astype(int) - 1, 0, self.size - 2)
        high = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + 1, low + 1, self.size)
        width, height = high - low
        fine = np.zeros((4 * height, 4 * width), np.uint8)
        places = np.rint(((pixels - low) * 4 - 0.5) * 2**FINE).astype(np.int32)
        cv2.fillPoly(fine, [places], 255, cv2.LINE_8, FINE)
        layer = self.blank()
        part = fine.reshape(height, 4, width, 4).mean(axis=(1, 3))
        layer[low[1] : high[1], low[0] : high[0]] = np.rint(part).astype(np.uint8)
        return layer

    def soften(self, layer: np.ndarray, sigma: float) -> np.ndarray:
        """Blurs with a Gaussian; `sigma` is a fraction of the side. Wide blurs use fewer pixels."""
        sigma *= self.size
        less = 1
        while sigma / less > 2.5 and self.size % (2 * less) == 0:
            less *= 2
        if less > 1:
            n = self.size // less
            layer = cv2.resize(layer, (n, n), interpolation=cv2.INTER_AREA)
        layer = cv2.GaussianBlur(layer, (0, 0), max(sigma / less, 0.3))
        if less > 1:
            layer = cv2.resize(layer, (self.size,) * 2, interpolation=cv2.INTER_LINEAR)
        return layer

    def spread(self, picture: np.ndarray) -> np.ndarray:
        """Enlarges a small float image to the size of the film."""
        return cv2.resize(picture, (self.size,) * 2, interpolation=cv2.INTER_CUBIC)

    def add(
        self,
        total: np.ndarray,
        layer: np.ndarray,
        weight: float,
        through: np.ndarray | None = None,
    ) -> None:
        """Adds an 8-bit layer, scaled so that 255 is `weight` and then by `through`, to `total`."""
        np.multiply(layer, np.float32(weight / 255), out=self.scratch, dtype=np.float32)
        if through is not None:
            np.multiply(self.scratch, through, out=self.scratch)
        np.add(total, self.scratch, out=total)


def clouds(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth noise of about unit variance, float32 [size, size], with `cells` cells per side."""
    noise = 2.5 * cv2.GaussianBlur(rng.standard_normal((cells, cells), np.float32), (0, 0), 0.7)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
