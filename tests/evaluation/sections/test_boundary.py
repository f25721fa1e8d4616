"""Outlines against `surface-distance`, whose definition they follow, and against closed forms."""

import math
import warnings

import cv2
import numpy as np
import pytest
from scipy import ndimage

from pneumojax.evaluation.sections import boundary
from tests.evaluation.tables import table

surface_distance = pytest.importorskip('surface_distance', reason='surface-distance is missing')


def blobs(rng, shape):
    """A mask of a few ellipses, holes and specks; sometimes empty or full."""
    mask = np.zeros(shape, np.uint8)
    kind = rng.random()
    if kind < 0.1:
        return mask + (kind < 0.02)
    for _ in range(rng.integers(1, 4)):
        centre = [int(c) for c in rng.integers(0, shape[::-1])]
        axes = [int(a) for a in rng.integers(0, 12, 2)]
        cv2.ellipse(
            mask, centre, axes, float(rng.integers(180)), 0, 360, int(rng.random() < 0.8), -1
        )
    return mask ^ (rng.random(shape) < 0.002)


def oracle(predicted, true, spacing, tolerances):
    with warnings.catch_warnings(action='ignore'):
        distances = surface_distance.compute_surface_distances(true > 0, predicted > 0, spacing)
        near = [
            surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
            for tolerance in tolerances
        ]
        # Where exactly 95 % of an outline lies within a distance, rounding decides on the next one.
        hd95 = [
            surface_distance.compute_robust_hausdorff(distances, percent)
            for percent in (95 - 1e-6, 95 + 1e-6)
        ]
        return [(value, value) for value in near] + [hd95]


def compared(seed, count):
    """Largest differences to the oracle over pairs of masks."""
    rng, worst = np.random.default_rng(seed), 0.0
    for number in range(count):
        shape = tuple(rng.integers(6, 48, 2))
        predicted, true = blobs(rng, shape), blobs(rng, shape)
        if number % 7 == 0:
            predicted = true.copy()
        spacing = tuple(rng.uniform(0.1, 2, 2)) if number % 3 == 0 else (rng.uniform(0.1, 2),) * 2
        # Not at a distance that pixels can have, where rounding decides.
        tolerances = 0.31 * math.pi * spacing[0], 1.31 * math.pi * spacing[0]
        found = boundary.compare(predicted, true, spacing, tolerances)
        if not predicted.any() or not true.any():
            either = predicted.any() or true.any()
            assert math.isnan(found.hd95)
            for value in (found[0], found[1], found.boundary_iou):
                assert value == 0 if either else math.isnan(value)
            continue
        for ours, theirs in zip(
            found[:3], oracle(predicted, true, spacing, tolerances), strict=True
        ):
            worst = max(worst, min(abs(ours - value) for value in theirs))
    return worst


def test_surface_dice_and_hd95_are_those_of_surface_distance():
    assert compared(0, 10_000) < 2e-5


def test_boundary_iou_is_its_definition():
    rng = np.random.default_rng(2)
    for _ in range(50):
        predicted, true = blobs(rng, (90, 120)), blobs(rng, (90, 120))
        if not predicted.any() or not true.any():
            continue
        width = round(0.02 * 150)
        bands = [
            mask.astype(bool) & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width)
            for mask in (predicted, true)
        ]
        expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        assert boundary.compare(predicted, true).boundary_iou == pytest.approx(expected)


def test_a_square_moved_sideways():
    true = np.zeros((64, 64), np.uint8)
    true[20:40, 20:40] = 1
    predicted = np.roll(true, 6, axis=1)
    found = boundary.compare(predicted, true, (0.5, 0.5), (2.9, 3.1))
    assert found.hd95 == pytest.approx(3.0)
    assert found.surface_dice_wide == 1.0
    assert 0.4 < found.surface_dice_narrow < 0.8  # left and right sides are 3 mm away


def test_means_and_the_median_leave_out_what_is_undefined():
    images = table([0] * 4, [9, 9, 9, 0], [9, 9, 0, 9], [0.5] * 4)
    images = images.__class__(**vars(images) | {
        'hd95': np.array([1.0, 5.0, np.nan, np.nan]),
        'boundary_iou': np.array([0.2, 0.4, 0.0, np.nan]),
    })  # fmt: skip
    weights = np.array([[1.0, 1, 1, 1], [1, 3, 0, 9], [0, 0, 2, 2]])
    with np.errstate(invalid='ignore'):
        np.testing.assert_allclose(
            boundary.BOUNDARY.metrics['boundary_iou'](images, weights), [0.2, 0.35, 0.0]
        )
        np.testing.assert_allclose(boundary.median_hd95(images, weights), [1.0, 5.0, np.nan])
