"""Lesions against the definition by brute force, and FROC against its definition."""

import numpy as np
import pytest
from scipy import ndimage

from pneumojax.evaluation import measure
from pneumojax.evaluation.sections import lesions
from pneumojax.evaluation.sections.section import Measured
from tests.evaluation.sections.test_boundary import blobs
from tests.evaluation.tables import table


def by_definition(predicted, true, least=lesions.LEAST_IOU):
    """(found lesions with their IoU, false marks), pair by pair."""
    eight = np.ones((3, 3))
    (ours, marks), (theirs, count) = (ndimage.label(mask, eight) for mask in (predicted, true))
    pairs = []
    for t in range(1, count + 1):
        for p in range(1, marks + 1):
            both, either = (theirs == t) & (ours == p), (theirs == t) | (ours == p)
            pairs.append((both.sum() / either.sum(), t, p))
    found = {}
    for iou, t, p in sorted(pairs, key=lambda pair: -pair[0]):
        if iou >= least and t not in found and p not in [mark for mark, _ in found.values()]:
            found[t] = p, iou
    matched = [mark for mark, _ in found.values()]
    false = [p for p in range(1, marks + 1) if p not in matched]
    return count, found, [(ours == p) for p in false], [(ours == p) for p in matched]


def test_matching_is_its_definition():
    rng, seen = np.random.default_rng(0), 0
    for _ in range(300):
        true = blobs(rng, (40, 40))
        predicted = blobs(rng, (40, 40)) if rng.random() < 0.5 else np.roll(true, 2, axis=0)
        level = (rng.integers(5, 100, (40, 40)) * (predicted > 0)).astype(np.uint8)
        found = lesions.match(predicted, true, level)
        count, expected, false, matched = by_definition(predicted, true)
        true_lesions = [lesion for lesion in found if lesion.is_true]
        assert len(true_lesions) == count
        assert sorted(one.iou for one in true_lesions if one.iou > 0) == pytest.approx(
            sorted(iou for _, iou in expected.values())
        )
        assert sum(lesion.area_px for lesion in true_lesions) == true.sum()
        assert sorted(one.area_px for one in found if not one.is_true) == sorted(
            mask.sum() for mask in false
        )
        assert sorted(one.confidence for one in found if one.confidence > 0) == pytest.approx(
            sorted(level[mask].max() / 100 for mask in (*false, *matched))
        )
        seen += len(expected)
    assert seen > 100


def test_the_same_half_whichever_way_the_picture_is_turned():
    left, right, middle = (np.zeros((10, 100), np.uint8) for _ in range(3))
    left[2:5, 10:30], right[2:5, 60:90], middle[:, 48:52] = 1, 1, 1
    assert lesions.same_half(left, left) == lesions.same_half(left[:, ::-1], left[:, ::-1]) == 1
    assert lesions.same_half(left, right) == lesions.same_half(left | right, left) == 0
    assert lesions.same_half(left | right, right | left) == 1
    for unknown in (middle, left * 0, left | middle):
        assert np.isnan(lesions.same_half(unknown, left))
        assert np.isnan(lesions.same_half(left, unknown))


def simulated(seed=0, count=120):
    """Masks of images, some without a lesion, and what is measured of them."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        true = blobs(rng, (40, 40)) * (rng.random() < 0.5)
        predicted = np.roll(true, 1, axis=0) if rng.random() < 0.6 else blobs(rng, (40, 40))
        level = (ndimage.label(predicted)[0] * 17 % 95 + 5) * (predicted > 0)
        masks.append((predicted.astype(np.uint8), true.astype(np.uint8), level.astype(np.uint8)))
    px = [[int(mask.sum()) for mask in masks_of[:2]] for masks_of in masks]
    patients = [f'p{i // 2}' for i in range(count)]
    images = table(
        np.zeros(count), [t for _, t in px], [p for p, _ in px], np.zeros(count), patients
    )
    return masks, measure.of_images(images, [None] * count, masks.__getitem__)


def test_froc_is_its_definition():
    masks, measured = simulated()
    alarms, hits = lesions.froc(measured.lesions, len(masks), np.ones((1, len(masks))))
    table_of = measured.lesions
    for step, (false_marks, share) in enumerate(zip(alarms[0], hits[0], strict=True)):
        least = 1 - step / 100 - 1e-9
        confident = np.nan_to_num(table_of.confidence) >= least
        assert false_marks == (confident & ~table_of.is_true).sum() / len(masks)
        found = confident & table_of.is_true & (table_of.iou > 0)
        assert share == pytest.approx(found.sum() / table_of.is_true.sum())


def test_the_section_counts_what_the_table_holds():
    _, measured = simulated(1)
    images, found = measured.images, measured.lesions
    details = lesions.LESIONS.details(measured, seed=0, samples=200)
    assert details['n_lesions'] == images.lesions.sum() == found.is_true.sum()
    assert details['n_false_marks'] == images.false_marks.sum() == (~found.is_true).sum()
    assert sum(band['n'] for band in details['by_size'].values()) == details['n_lesions']
    assert sum(band['found'] for band in details['by_size'].values()) == images.lesions_found.sum()
    points = [point['value'] for point in details['froc']['at']]
    assert points == sorted(points)
    for point in details['froc']['at']:
        assert point['low'] <= point['value'] <= point['high']
    # The last point of the curve is the rule's own.
    whole = np.ones((1, len(images)))
    metrics = lesions.LESIONS.metrics
    assert details['froc']['detection'][-1] == pytest.approx(metrics['detection'](images, whole)[0])
    assert details['froc']['false_marks'][-1] == metrics['false_marks'](images, whole)[0]
    precision, recall, f1 = (
        metrics[name](images, whole)[0] for name in ('precision', 'detection', 'f1')
    )
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_without_a_table_there_are_no_details():
    _, measured = simulated(2, 6)
    assert lesions.LESIONS.details(Measured(measured.images), seed=0, samples=10) == {}


def test_millimetres_only_where_every_image_with_a_lesion_states_its_spacing():
    masks, _ = simulated(3, 40)
    px = [[int(mask.sum()) for mask in masks_of[:2]] for masks_of in masks]
    images = table(np.zeros(40), [t for _, t in px], [p for p, _ in px], np.zeros(40))
    spacing = [(0.5, 0.5) if positive else None for positive in images.positive]
    in_mm = measure.of_images(images, spacing, masks.__getitem__)
    spacing[np.flatnonzero(images.positive)[3]] = None
    in_px = measure.of_images(images, spacing, masks.__getitem__)
    assert (in_mm.unit, in_px.unit) == ('mm', 'px')
    np.testing.assert_allclose(in_mm.images.hd95, in_px.images.hd95 / 2, rtol=1e-5)
    known = np.isfinite(in_mm.lesions.area_mm2)
    assert known.any()
    np.testing.assert_allclose(in_mm.lesions.area_mm2[known], in_mm.lesions.area_px[known] / 4)
