"""The anatomy of a phantom: outlines and curves as points, in fractions of the image's side.

x points to the right of the image (the patient's left), y down; the midline is x = 0.5. This module
is geometry only; `drawing` decides how bright it is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Outline of one lung as (distance from the midline, y): over the apex, down the chest wall into the
# costophrenic angle, back along the diaphragm and up the mediastinum.
OUTLINE = np.array([
    (0.075, 0.150), (0.140, 0.095), (0.215, 0.122), (0.285, 0.205), (0.335, 0.325),
    (0.362, 0.460), (0.375, 0.600), (0.376, 0.720), (0.368, 0.800), (0.340, 0.775),
    (0.280, 0.712), (0.210, 0.688), (0.130, 0.698), (0.065, 0.722), (0.058, 0.600),
    (0.058, 0.450), (0.060, 0.300),
])  # fmt: skip
COSTOPHRENIC = 8  # index in OUTLINE; the chest wall is before it, the diaphragm after it
DIAPHRAGM = slice(9, 14)
SAMPLES = 14  # of the curve between two points

# Mask area of SIIM-ACR's positives in pixels at 1024 x 1024: the median, the spread of its
# logarithm below and above (from the 10 % and 90 % quantiles, 2,061 and 32,219), the smallest area
# drawn and the largest found.
AREA_MEDIAN, AREA_SPREAD, AREA_RANGE = 9500, (1.192, 0.953), (300, 81000)


class Lung(NamedTuple):
    """One pleural cavity. The outline begins at the medial apex."""

    side: int  # -1: the image's left (the patient's right lung), +1: the image's right
    outline: np.ndarray  # [n, 2], closed
    hilum: np.ndarray  # [2]
    wall: int  # the first `wall` points of the outline follow the chest wall
    collapse: np.ndarray  # [n] in [0, 1): how far the surface has retracted towards the hilum

    def at(self, place: ArrayLike, depth: ArrayLike) -> np.ndarray:
        """Points in the lung: `place` in [0, 1) around its surface, `depth` 0 at the hilum."""
        index = np.asarray(place, float) * len(self.outline)
        low = np.floor(index).astype(int) % len(self.outline)
        high, part = (low + 1) % len(self.outline), (index % 1)[..., None]
        surface = self.surface()
        edge = surface[low] * (1 - part) + surface[high] * part
        return self.hilum + np.asarray(depth)[..., None] * (edge - self.hilum)

    def surface(self) -> np.ndarray:
        """The visceral pleura [n, 2]; equal to the outline where nothing has collapsed."""
        return self.outline + self.collapse[:, None] * (self.hilum - self.outline)


def smooth(points: ArrayLike, samples: int = SAMPLES, closed: bool = False) -> np.ndarray:
    """A Catmull-Rom curve [m, 2] through `points` [n, 2]."""
    points = np.asarray(points, float)
    ends = points[-1:], points[:2]
    if not closed:
        ends = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    p = np.concatenate([ends[0], points, ends[1]])
    segments = len(points) if closed else len(points) - 1
    t = np.arange(samples)[:, None, None] / samples
    a, b, c, d = (p[i : i + segments] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    curve = curve.transpose(1, 0, 2).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def polygon_area(points: np.ndarray) -> float:
    """The area of a simple polygon [n, 2] (Gauss's shoelace formula)."""
    x, y = (points - points[0]).T
    return abs(np.dot(x[1:], y[:-1]) - np.dot(y[1:], x[:-1])) / 2


def lungs(rng: np.random.Generator) -> tuple[Lung, Lung]:
    """Draws both cavities of a patient; the right one, at the left of the image, comes first."""
    width, depth = rng.uniform(0.90, 1.08), rng.uniform(0.88, 1.07)
    slim, lean = rng.uniform(-0.012, 0.012), rng.uniform(-0.012, 0.012)
    both = []
    for side in (-1, 1):
        points = OUTLINE + rng.normal(0, 0.004, OUTLINE.shape)
        points[DIAPHRAGM, 1] += 0.022 * (side == 1) + rng.uniform(-0.012, 0.012)
        points[:, 0] *= width
        points[:, 0] += slim * (points[:, 1] - 0.4) + side * lean
        points[:, 1] = 0.12 + (points[:, 1] - 0.12) * depth
        points[:, 0] = 0.5 + side * points[:, 0]
        outline = smooth(points, closed=True)
        hilum = np.array([0.5 + side * 0.105, 0.12 + 0.30 * depth + 0.01 * (side == -1)])
        wall = COSTOPHRENIC * SAMPLES + 1
        both.append(Lung(side, outline, hilum, wall, np.zeros(len(outline))))
    return both[0], both[1]


def pneumothorax_area(rng: np.random.Generator) -> float:
    """Draws a mask area as a fraction of the image, distributed like SIIM-ACR's positives."""
    z = rng.standard_normal()
    area = AREA_MEDIAN * np.exp(z * AREA_SPREAD[int(z > 0)])
    return float(np.clip(area, *AREA_RANGE)) / 1024**2


def crescent(lung: Lung) -> np.ndarray:
    """The polygon [m, 2] between the lung's surface and the chest wall where they are apart."""
    (parted,) = np.nonzero(lung.collapse > 0)
    span = np.arange(max(parted[0] - 1, 0), min(parted[-1] + 2, len(lung.outline)))
    return np.concatenate([lung.outline[span], lung.surface()[span][::-1]])


def collapse(rng: np.random.Generator, lung: Lung, area: float) -> Lung:
    """Lets a lung retract from the chest wall, apically or laterally, until the gap has an area.

    Args:
      rng: decides the place along the wall and the shape.
      lung: without a collapse.
      area: of the crescent, as a fraction of the image.

    Returns:
      The lung with its `collapse`; larger gaps extend further along the wall. The area is exact to
      0.1 % unless the lung is too small for it.
    """
    share = area / polygon_area(lung.outline)
    extent = min(1.0, (0.07 + 0.80 * share**0.45) * rng.uniform(0.85, 1.3))
    place = rng.random()
    if place < 0.7:  # apical, usual in a standing patient
        start = rng.uniform(0.0, 0.12)
    elif place < 0.93:
        start = rng.uniform(0.15, 0.5)
    else:  # basal, as in a supine patient
        start = 1 - extent
    start = min(start, 1 - extent)
    peak, waves, blunt = rng.uniform(0.35, 0.65), rng.uniform(-0.06, 0.06, 3), rng.uniform(0.5, 0.9)

    steps = np.linalg.norm(np.diff(lung.outline[: lung.wall], axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)]) / steps.sum()

    def gap(depth: float, start: float, extent: float) -> Lung:
        v = np.clip((along - start) / extent, 0, 1)
        bump = (
            4 * v ** (np.log(0.5) / np.log(peak)) * (1 - v ** (np.log(0.5) / np.log(peak)))
        ) ** blunt
        bump *= 1 + sum(w * np.sin((i + 2) * np.pi * v) for i, w in enumerate(waves))
        new = np.zeros(len(lung.outline))
        new[: lung.wall] = depth * bump
        return lung._replace(collapse=new)

    # A larger gap extends along the wall rather than to the hilum.
    while extent < 1 and polygon_area(crescent(gap(0.5, start, extent))) < area:
        extent = min(1.0, 1.15 * extent)
        start = min(start, 1 - extent)
    low, high = 0.0, 0.8
    for _ in range(18):
        middle = (low + high) / 2
        small = polygon_area(crescent(gap(middle, start, extent))) < area
        low, high = (middle, high) if small else (low, middle)
    return gap(high, start, extent)


def wall_x(lung: Lung, y: np.ndarray) -> np.ndarray:
    """The x of the chest wall at heights `y`."""
    wall = lung.outline[SAMPLES : lung.wall]
    return np.interp(y, wall[:, 1], wall[:, 0])


def posterior_ribs(lung: Lung, droop: float) -> np.ndarray:
    """Ribs 1 to 10 from the spine, over the rib angle, down to the chest wall: [10, 25, 2]."""
    s, number = np.linspace(0, 1, 25), np.arange(1, 11)[:, None]
    begin, base = 0.065 + 0.068 * number, 0.012 + 0.010 * np.minimum(number, 8)
    y = begin - 0.03 * np.sin(np.pi * np.minimum(1.4 * s, 1)) + (droop + base) * s**2.4
    x, reach = 0.5 + lung.side * 0.035, wall_x(lung, y[:, -1:]) + lung.side * 0.008
    return np.stack([x + (reach - x) * np.sin(s * np.pi / 2) ** 0.92, y], axis=2)


def anterior_ribs(lung: Lung, start: np.ndarray, fall: float) -> np.ndarray:
    """The anterior ribs [n, 17, 2], from the chest wall at `start` [n, 2] to the sternum."""
    s, goal = np.linspace(0, 1, 17), 0.5 + lung.side * 0.11
    x = start[:, :1] + (goal - start[:, :1]) * s**1.6
    return np.stack([x, start[:, 1:] + fall * np.sin(s * np.pi / 2) ** 1.1], axis=2)


def clavicle(lung: Lung, lift: float) -> np.ndarray:
    """The clavicle, a shallow S from the sternum to the shoulder."""
    dx = np.array([0.045, 0.095, 0.155, 0.22, 0.29, 0.36])
    y = np.array([0.185, 0.172, 0.160, 0.138, 0.120, 0.115]) + lift * np.array(
        [0, 0.1, 0.3, 0.6, 0.9, 1]
    )
    return smooth(np.stack([0.5 + lung.side * dx, y], axis=1), 8)


def scapula(lung: Lung, inward: float) -> np.ndarray:
    """The shoulder blade, a polygon; `inward` moves its medial border over the lateral lung."""
    dx = np.array([0.30, 0.33, 0.40, 0.46, 0.47, 0.42, 0.355]) - inward
    y = np.array([0.20, 0.155, 0.13, 0.17, 0.25, 0.37, 0.43])
    return smooth(np.stack([0.5 + lung.side * dx, y], axis=1), 8, closed=True)


def heart(size: float, lower: float) -> np.ndarray:
    """One outline of heart, great vessels and upper mediastinum; the apex is at image right."""
    points = np.array([
        (0.440, -0.2), (0.560, -0.2), (0.560, 0.20), (0.585, 0.255), (0.588, 0.295),
        (0.572, 0.335), (0.592, 0.385), (0.615, 0.44), (0.665, 0.53), (0.700, 0.62),
        (0.705, 0.69), (0.660, 0.80), (0.410, 0.80), (0.396, 0.68), (0.402, 0.58),
        (0.425, 0.50), (0.440, 0.42), (0.440, 0.20),
    ])  # fmt: skip
    below = np.clip((points[:, 1] - 0.33) / 0.2, 0, 1)
    points[:, 0] = 0.52 + (points[:, 0] - 0.52) * (1 + (size - 1) * below)
    points[:, 1] += lower * np.clip((points[:, 1] - 0.2) / 0.5, 0, 1)
    return smooth(points, 8, closed=True)


def body(rng: np.random.Generator) -> np.ndarray:
    """The outline of neck, shoulders, arms and flanks."""
    half = np.array([
        (0.105, -0.1), (0.110, 0.02), (0.20, 0.060), (0.33, 0.085), (0.43, 0.14),
        (0.49, 0.24), (0.50, 0.36), (0.47, 0.50), (0.455, 0.70), (0.47, 1.15),
    ])  # fmt: skip
    half[:, 0] *= np.where(half[:, 1] < 0.05, 1, rng.uniform(0.93, 1.15))
    half[:, 1] += rng.uniform(-0.02, 0.03)
    points = np.concatenate([half * (1, 1), half[::-1] * (-1, 1)])
    return smooth(points + np.array((0.5, 0)), 6, closed=True)


class Strokes(NamedTuple):
    """Many short curves."""

    curves: np.ndarray  # [n, 3, 2]
    widths: np.ndarray  # [n]
    values: np.ndarray  # [n] in [0, 1]


def vessels(rng: np.random.Generator, lung: Lung) -> Strokes:
    """Branching lung vessels that become thinner and fainter outwards.

    They follow the coordinates of the lung: in a collapsed lung they are crowded, and none enter
    the pleural space.
    """
    trunks, forks, steps = 12, (3, 3, 2, 0), np.linspace(0, 1, 7)
    place = np.linspace(0, 0.82, trunks) + rng.uniform(-0.025, 0.025, trunks)
    depth, turn = np.full(trunks, 0.05), rng.uniform(-0.05, 0.05, trunks)
    length, width = rng.uniform(0.4, 0.7, trunks), rng.uniform(0.005, 0.009, trunks)
    drawn = []
    for children in forks:
        length = np.minimum(length, 0.97 - depth)
        wander = np.cumsum(rng.normal(0, 0.006, (len(place), 7)), axis=1)
        places = place[:, None] + turn[:, None] * steps**1.3 + wander - wander[:, :1]
        depths = depth[:, None] + length[:, None] * steps
        curves = lung.at(places % 1, depths)
        for i in (0, 2, 4):
            fade = 0.12 + 0.88 * (1 - depths[:, i]) ** 1.1
            drawn.append(Strokes(curves[:, i : i + 3], width * (1 - 0.45 * steps[i]), fade))
        shape = (len(place), children)
        fork, rows = rng.integers(1, 7, shape), np.arange(len(place))[:, None]
        place, depth = places[rows, fork].ravel(), depths[rows, fork].ravel()
        turn = (rng.choice((-1, 1), shape) * rng.uniform(0.02, 0.08, shape)).ravel()
        length = (length[:, None] * rng.uniform(0.5, 0.9, shape)).ravel()
        width = (width[:, None] * rng.uniform(0.45, 0.68, shape)).ravel()
    return Strokes(*(np.concatenate(parts) for parts in zip(*drawn, strict=True)))


def skin_fold(rng: np.random.Generator, lung: Lung) -> np.ndarray:
    """A long line down the lateral lung that, unlike the pleura, crosses the chest wall."""
    x = 0.5 + lung.side * rng.uniform(0.17, 0.29)
    dx = lung.side * (
        rng.uniform(0.02, 0.10) * np.array([0, 0.3, 0.7, 1.1]) + rng.normal(0, 0.006, 4)
    )
    y = rng.uniform(0.05, 0.3) + rng.uniform(0.12, 0.22) * np.arange(4)
    return smooth(np.stack([x + dx, y], axis=1), 8)


def ellipse(centre: ArrayLike, a: float, b: float) -> np.ndarray:
    """An outline [40, 2] with half axes `a` across and `b` down, in fractions of the side."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.asarray(centre) + np.stack([a * np.cos(t), b * np.sin(t)], axis=1)
