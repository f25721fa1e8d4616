"""Draws a phantom: adds up the attenuation along the X-rays, then exposes a film.

All random numbers come from the given generator, in an order that does not depend on the size (the
noise of the film is drawn last), so a seed gives the same patient at any size.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from pneumojax.data.phantoms import shapes
from pneumojax.data.phantoms.film import Film, clouds
from pneumojax.data.phantoms.shapes import ellipse

SMALLEST = 256  # smaller images are drawn at a multiple of their size and averaged down


Pair = list[shapes.Lung]  # the patient's right lung, then the left one


class Phantom(NamedTuple):
    """One synthetic radiograph."""

    image: np.ndarray  # uint8 [S, S], MONOCHROME2 sense
    mask: np.ndarray  # uint8 [S, S] of 0 and 1: the pneumothorax


def draw(rng: Generator, size: int, positive: bool) -> Phantom:
    """Draws one frontal chest radiograph.

    Args:
      rng: the only source of randomness.
      size: side in pixels, 32 or more.
      positive: whether to draw a pneumothorax; the mask is empty if and only if this is False.

    Returns:
      The image and the exact region between the pleural line and the chest wall.

    Raises:
      ValueError: the size is below 32.
    """
    if size < 32:
        raise ValueError(f'a phantom has at least 32 pixels a side, not {size}')
    drawn = size * math.ceil(SMALLEST / size)
    film = Film(drawn, pose(rng), np.empty((drawn, drawn), np.float32))
    pair = list(shapes.lungs(rng))
    if positive:
        ill, scale = int(rng.integers(2)), np.linalg.det(film.pose[:, :2])
        area = shapes.pneumothorax_area(rng) / scale
        pair[ill] = shapes.collapse(rng, pair[ill], area)
    gap = film.blank()
    for lung in pair:
        if lung.collapse.any():
            gap = film.cover(shapes.crescent(lung))
    density = attenuation(rng, film, pair, gap)
    image = expose(rng, film, density)
    gap, image = shrink(gap, size), shrink(image, size)
    mask = (gap >= 128).astype(np.uint8)
    if positive and not mask.any():
        mask.flat[gap.argmax()] = 1
    return Phantom(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask)


def shrink(picture: np.ndarray, size: int) -> np.ndarray:
    """Averages square blocks of pixels."""
    if len(picture) == size:
        return picture
    n = len(picture) // size
    return picture.reshape(size, n, size, n).mean(axis=(1, 3))


def pose(rng: Generator) -> np.ndarray:
    """Draws the patient's position: [2, 3], anatomy to image, about the centre of the image."""
    turn, scale = rng.normal(0, 0.028), rng.uniform(0.90, 1.10)
    stretch = rng.uniform(0.95, 1.05)
    matrix = scale * np.array([
        [stretch * np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn) / stretch],
    ])  # fmt: skip
    shift = 0.5 + rng.uniform(-0.035, 0.035, 2) - matrix @ (0.5, 0.45)
    return np.concatenate([matrix, shift[:, None]], axis=1)


def attenuation(rng: Generator, film: Film, pair: Pair, gap: np.ndarray) -> np.ndarray:
    """Attenuation of the rays, float32 [size, size]: 0 in the air outside, about 1 at the spine."""
    density = film.spread(0.60 * (1 + 0.06 * clouds(rng, 6, 32)))
    flesh = film.soften(film.fill(shapes.body(rng)), 0.012)
    density *= np.multiply(flesh, np.float32(1 / 255), out=film.scratch, dtype=np.float32)

    # Air displaces tissue in the cavities; behind the heart little of it is visible.
    outlines = film.soften(film.fill(*(lung.outline for lung in pair)), 0.0022)
    middle = shapes.heart(rng.uniform(0.88, 1.25), rng.uniform(-0.03, 0.02))
    heart = film.soften(film.fill(middle), 0.004)
    floor = belly(rng, film, pair)
    air = np.zeros_like(density)
    film.add(air, cv2.subtract(outlines, cv2.multiply(outlines, heart, scale=0.86 / 255)), 1.0)
    density -= np.multiply(air, np.float32(rng.uniform(0.28, 0.36)), out=film.scratch)
    film.add(density, cv2.max(heart, floor), rng.uniform(0.09, 0.15))
    spine(rng, film, density)

    # The lung: vessels and a fine texture, neither of which extends into the gap.
    gap = film.soften(gap, 0.0008)
    tissue = np.zeros_like(density)
    film.add(tissue, cv2.bitwise_not(gap), 1.0, air)
    film.add(density, lung_vessels(rng, film, pair), rng.uniform(0.20, 0.30), tissue)
    texture = 0.016 * clouds(rng, 24, 128) + 0.020 * clouds(rng, 56, 128)
    texture = film.spread(rng.uniform(0.7, 1.3) * (texture + 0.014 * clouds(rng, 128, 128)))
    density += np.multiply(texture, tissue, out=film.scratch)
    film.add(density, gap, -rng.uniform(0.14, 0.21), air)
    film.add(density, pleural_lines(rng, film, pair), rng.uniform(0.22, 0.36), air)

    bones(rng, film, pair, density)
    distractors(rng, film, pair, density, air)
    hardware(rng, film, density)
    return density


def spine(rng: Generator, film: Film, density: np.ndarray) -> None:
    """Adds the vertebrae with their discs, and the dark trachea in front of them."""
    layer, x, down = film.blank(), 0.5 + rng.normal(0, 0.003), np.array([-0.1, 1.1])
    film.stroke(layer, np.stack([[x, x], down], axis=1), 0.092, 0.55)
    for number in range(18):
        y, half = -0.02 + 0.058 * number, 0.036 + 0.0006 * number
        bone = np.array([(-half, 0), (half, 0), (0.94 * half, 0.045), (-0.94 * half, 0.045)])
        film.paint(layer, bone + np.array((x, y)), 255)
    film.add(density, film.soften(layer, 0.0045), 0.12)
    lean, trachea = rng.normal(0, 0.008), film.blank()
    carina = (0.5 + lean, 0.31)
    for side in (-1, 1):
        film.stroke(trachea, np.array([carina, (0.5 + side * 0.07, 0.375)]), 0.020, 0.55)
    film.stroke(trachea, np.array([(0.5, -0.05), (0.5 + lean, 0.2), carina]), 0.032)
    film.add(density, film.soften(trachea, 0.006), -0.13)


def belly(rng: Generator, film: Film, pair: Pair) -> np.ndarray:
    """The region under the diaphragm, sometimes with gas in the stomach."""
    domes = [lung.outline[shapes.COSTOPHRENIC * shapes.SAMPLES :] for lung in pair]
    domes = [dome[: 5 * shapes.SAMPLES] for dome in domes]
    edge = np.concatenate([domes[0], domes[1][::-1], [(0.99, 1.2), (0.01, 1.2)]])
    layer = film.soften(film.fill(edge), 0.02)
    gas, place = rng.random() < 0.45, rng.uniform((0.64, 0.79), (0.74, 0.86))
    bubble = ellipse(place, rng.uniform(0.03, 0.07), rng.uniform(0.02, 0.04))
    return cv2.subtract(layer, film.soften(film.fill(bubble), 0.008)) if gas else layer


def lung_vessels(rng: Generator, film: Film, pair: Pair) -> np.ndarray:
    """The lung vessels and the hila that they branch from."""
    layer, hila = film.blank(), film.blank()
    for lung in pair:
        film.strokes(layer, shapes.vessels(rng, lung))
        root = ellipse(lung.hilum - (lung.side * 0.012, 0), 0.028, 0.055)
        film.paint(hila, root, 130)
    return cv2.add(film.soften(layer, 0.0016), film.soften(hila, 0.016))


def pleural_lines(rng: Generator, film: Film, pair: Pair) -> np.ndarray:
    """The thin bright edge of a retracted lung."""
    width, layer = rng.uniform(0.0026, 0.0042), film.blank()
    for lung in pair:
        (parted,) = np.nonzero(lung.collapse > 0)
        if len(parted):
            film.stroke(layer, lung.surface()[parted], width)
    return film.soften(layer, 0.0006)


def bones(rng: Generator, film: Film, pair: Pair, density: np.ndarray) -> None:
    """Adds ribs (with a cortex brighter than the marrow), clavicles and shoulder blades."""
    back, front, collar, blade = (film.blank() for _ in range(4))
    droop, fall = rng.uniform(0.03, 0.09), rng.uniform(0.15, 0.22)
    width, lift, inward = (
        rng.uniform(0.017, 0.023),
        rng.uniform(-0.05, 0.03),
        rng.uniform(-0.03, 0.045),
    )
    border = rng.uniform(0.6, 1)
    for lung in pair:
        ribs = shapes.posterior_ribs(lung, droop)
        film.stroke(back, ribs, width, 1.0)
        film.stroke(back, ribs, width * 0.66, 0.62)
        film.stroke(front, shapes.anterior_ribs(lung, ribs[1:7, -1], fall), width * 1.25, 1.0)
        curve, outline = shapes.clavicle(lung, lift), shapes.scapula(lung, inward)
        film.stroke(collar, curve, 0.027, 1.0)
        film.stroke(collar, curve, 0.017, 0.7)
        film.paint(blade, outline, 120)
        film.stroke(blade, np.concatenate([outline, outline[:1]]), 0.005, border)
    film.add(density, film.soften(back, 0.0016), rng.uniform(0.055, 0.09))
    film.add(density, film.soften(front, 0.003), rng.uniform(0.025, 0.06))
    film.add(density, film.soften(collar, 0.0018), rng.uniform(0.10, 0.15))
    film.add(density, film.soften(blade, 0.002), rng.uniform(0.05, 0.08))


def distractors(
    rng: Generator, film: Film, pair: Pair, density: np.ndarray, air: np.ndarray
) -> None:
    """Adds findings that resemble or hide a pneumothorax, in positives and negatives alike."""
    if rng.random() < 0.25:  # skin folds: an edge with a bright side, not a line
        fold, layer, steps = shapes.skin_fold(rng, pair[rng.integers(2)]), film.blank(), 7
        inward = np.sign(0.5 - fold[:, 0].mean())
        for step in range(steps):
            shifted = fold + np.array((inward * 0.005 * (steps - 1 - step), 0))
            film.stroke(layer, shifted, 0.0065, (step + 1) / steps)
        film.add(density, film.soften(layer, 0.0012), rng.uniform(0.05, 0.10))
    if rng.random() < 0.18:  # a bulla: dark, without vessels, with a wall all round
        lung = pair[rng.integers(2)]
        place = lung.at(rng.uniform(0.05, 0.35), rng.uniform(0.45, 0.7))
        ring = ellipse(place, *rng.uniform(0.02, 0.05, 2))
        film.add(density, film.soften(film.fill(ring), 0.004), -rng.uniform(0.03, 0.07), air)
        line = film.stroke(film.blank(), np.concatenate([ring, ring[:1]]), 0.002)
        film.add(density, film.soften(line, 0.0008), 0.07, air)
    if rng.random() < 0.15:  # an apical cap: a crescent too, but bright
        lung = pair[rng.integers(2)]
        cap = shapes.collapse(
            rng, lung._replace(collapse=0 * lung.collapse), rng.uniform(0.001, 0.006)
        )
        if not lung.collapse.any():
            film.add(density, film.soften(film.fill(shapes.crescent(cap)), 0.006), 0.10, air)
    for _ in range(rng.poisson(0.5)):  # consolidations
        place = pair[rng.integers(2)].at(rng.random(), rng.uniform(0.2, 0.75))
        spot = film.soften(film.fill(ellipse(place, *rng.uniform(0.02, 0.07, 2))), 0.025)
        film.add(density, spot, rng.uniform(0.06, 0.2), air)
    if rng.random() < 0.4:  # breasts
        both, drop, wide = film.blank(), rng.uniform(0.56, 0.66), rng.uniform(0.10, 0.15)
        for side in (-1, 1):
            place = (0.5 + side * rng.uniform(0.21, 0.27), drop)
            film.paint(both, ellipse(place, wide, wide), 255)
        film.add(density, film.soften(both, 0.012), rng.uniform(0.04, 0.11))
    fields = film.blank()  # one lung may be darker than the other without a pneumothorax
    for lung in pair:
        darker = 255 * rng.random() ** 2
        film.paint(fields, lung.outline, darker)
    film.add(density, film.soften(fields, 0.003), -0.05, air)


def hardware(rng: Generator, film: Film, density: np.ndarray) -> None:
    """Adds chest tubes, lines, a tracheal tube and electrodes with their leads."""
    metal, hose = film.blank(), film.blank()
    if rng.random() < 0.15:
        side = (-1, 1)[rng.integers(2)]
        dx, y = np.array([0.46, 0.38, 0.30, 0.24, 0.22]), np.array([0.66, 0.56, 0.44, 0.30, 0.20])
        tube = np.stack([0.5 + side * dx, y + rng.uniform(-0.06, 0.08)], axis=1)
        tube = shapes.smooth(tube + rng.normal(0, 0.012, tube.shape), 8)
        film.stroke(hose, tube, 0.013, 0.9)
        film.stroke(hose, tube, 0.009, 0.45)
        film.stroke(hose, tube, 0.002, 1.0)
    if rng.random() < 0.15:
        line = [(0.40, -0.05), (0.42, 0.1), (0.455, 0.2), (0.462, 0.35), (0.46, 0.42)]
        film.stroke(hose, shapes.smooth(line + rng.normal(0, 0.006, (5, 2)), 8), 0.004, 0.8)
    if rng.random() < 0.12:
        film.stroke(hose, np.array([(0.505, -0.1), (0.5, 0.1), (0.5, 0.25)]), 0.010, 0.7)
    for _ in range(rng.integers(2, 5) if rng.random() < 0.28 else 0):
        place = rng.uniform((0.12, 0.15), (0.88, 0.8))
        disc = ellipse(place, 0.012, 0.012)
        film.paint(metal, disc, 210)
        end = ((-0.1, 1.1)[rng.integers(2)], rng.uniform(0.2, 1.0))
        bend = (place + end) / 2 + rng.normal(0, 0.07, 2)
        film.stroke(metal, shapes.smooth(np.array([place, bend, end]), 10), 0.003, 0.8)
    for layer, weight in ((metal, 0.35), (hose, 0.20)):
        if layer.any():
            film.add(density, film.soften(layer, 0.0008), weight)


def expose(rng: Generator, film: Film, density: np.ndarray) -> np.ndarray:
    """Converts attenuation to grey values: scatter, film curve, collimator, side marker, noise."""
    scatter, crispness = film.soften(density, 0.08), rng.uniform(-0.1, 0.2)
    image = film.soften(density, rng.uniform(0.0002, 0.0011))
    image = cv2.addWeighted(image, 1 + crispness, scatter, -crispness, 0)
    low, high = rng.uniform(0.0, 0.10), rng.uniform(0.86, 1.04)
    image -= np.float32(low)
    image *= np.float32(1 / (high - low))
    np.clip(image, 0, 1, out=image)
    image = cv2.pow(image, np.exp(rng.normal(0.0, 0.16)))
    tilt = np.linspace(-1, 1, film.size, dtype=np.float32) * np.float32(rng.normal(0, 0.03))
    image *= 255 * (1 + tilt)[:, None]
    upright = film._replace(pose=np.eye(2, 3))
    if rng.random() < 0.35:  # shutters
        inset, turn = rng.uniform(0, 0.06, 4), rng.normal(0, 0.012, 4)
        left, top, right, bottom = inset[0], inset[1], 1 - inset[2], 1 - inset[3]
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        inside = film.soften(upright.fill(corners + turn[:, None] * (1, -1)), 0.001)
        image *= np.multiply(inside, np.float32(1 / 255), out=film.scratch, dtype=np.float32)
    letter(rng, upright, image)
    grain = np.float32(rng.uniform(1.0, 5.0) * max(0.5, film.size / 1024))
    rng.standard_normal(dtype=np.float32, out=film.scratch)
    image += np.multiply(film.scratch, grain, out=film.scratch)
    return np.clip(image, 0, 255, out=image)


def letter(rng: Generator, film: Film, image: np.ndarray) -> None:
    """Draws the lead side marker: R at the left of the image or L at its right."""
    strokes: dict[str, list[list]] = {
        'R': [[(0, 1), (0, 0), (0.45, 0), (0.6, 0.12), (0.6, 0.38), (0.45, 0.5), (0, 0.5)],
              [(0.3, 0.5), (0.65, 1)]],
        'L': [[(0, 0), (0, 1), (0.55, 1)]],
    }  # fmt: skip
    name, height, turn = 'RL'[rng.integers(2)], rng.uniform(0.03, 0.05), rng.normal(0, 0.1)
    place = np.array([0.05 if name == 'R' else 0.91, 0.09]) + rng.uniform(
        (-0.02, -0.05), (0.02, 0.05)
    )
    rotate = height * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    layer = film.blank()
    for curve in strokes[name]:
        film.stroke(layer, np.array(curve) @ rotate + place, 0.006)
    np.multiply(layer, np.float32(rng.uniform(0.85, 1.0)), out=film.scratch, dtype=np.float32)
    np.maximum(image, film.scratch, out=image)
