"""A film to draw anatomy on, at any size, with OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np

from pneumojax.data.phantoms.shapes import Strokes

FINE = 4  # bits of sub-pixel position handed to OpenCV


class Film(NamedTuple):
    """Draws shapes given in parts of the side as 8-bit layers [size, size]."""

    size: int
    pose: np.ndarray  # [2, 3]
    scratch: np.ndarray  # float32 [size, size]: fresh pages for every sum would cost half the time

    def blank(self) -> np.ndarray:
        """An empty layer."""
        return np.zeros((self.size, self.size), np.uint8)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Anatomy to OpenCV's pixel centres in fixed point."""
        pixels = (points @ self.pose[:, :2].T + self.pose[:, 2]) * self.size - 0.5
        return np.rint(pixels * 2**FINE).astype(np.int32)

    def fill(self, *polygons: np.ndarray) -> np.ndarray:
        """A new layer with these polygons."""
        layer = self.blank()
        for polygon in polygons:
            self.paint(layer, polygon, 255)
        return layer

    def paint(self, layer: np.ndarray, polygon: np.ndarray, value: float) -> None:
        """Fills a polygon [n, 2] with a value of 0 to 255."""
        cv2.fillPoly(layer, [self.points(polygon)], value, cv2.LINE_AA, FINE)

    def stroke(self, layer: np.ndarray, curves: np.ndarray, width: float, value: float = 1.0):
        """Draws a curve [m, 2] or several [n, m, 2] in place and returns the layer.

        A line thinner than a pixel is drawn a pixel wide and fainter.
        """
        pixels = max(1, round(width * self.size))
        value *= min(1.0, width * self.size / pixels)
        lines = list(self.points(np.reshape(curves, (-1, *np.shape(curves)[-2:]))))
        cv2.polylines(layer, lines, False, 255 * value, pixels, cv2.LINE_AA, FINE)
        return layer

    def strokes(self, layer: np.ndarray, strokes: Strokes) -> np.ndarray:
        """Draws many lines, the faint ones first, in a few steps of brightness and width."""
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
        """How much of each pixel a polygon covers (0 to 255), counted at 4 x 4 places in it.

        OpenCV's own fill takes in the whole outline, which would widen a thin crescent.
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
        """Gaussian blur; `sigma` is a part of the side. Wide ones are made on a smaller picture."""
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
        """Enlarges a small float picture to the film's size."""
        return cv2.resize(picture, (self.size,) * 2, interpolation=cv2.INTER_CUBIC)

    def add(self, total: np.ndarray, layer: np.ndarray, weight: float, through=None) -> None:
        """Adds an 8-bit layer, `weight` where it is full, to `total`; `through` dims it."""
        np.multiply(layer, np.float32(weight / 255), out=self.scratch, dtype=np.float32)
        if through is not None:
            np.multiply(self.scratch, through, out=self.scratch)
        np.add(total, self.scratch, out=total)


def clouds(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth noise of about unit variance, float32 [size, size], with so many cells a side."""
    noise = 2.5 * cv2.GaussianBlur(rng.standard_normal((cells, cells), np.float32), (0, 0), 0.7)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
