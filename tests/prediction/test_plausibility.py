"""The note that a picture does not look like a frontal chest radiograph."""

import cv2
import numpy as np
import pytest

from benchmarks import plausibility as benchmark
from pneumojax.data.phantoms import phantom
from pneumojax.prediction import plausibility
from tests.data.files.test_inputs import make
from tests.prediction.predictions import predict, results

CAUGHT = {  # of ten phantoms; the benchmark has figures of radiographs
    'blank': 10, 'inverted': 10, 'turned by 90': 10, 'turned by 180': 9, 'noise': 10,
    'blurred': 10, 'a quarter of it': 4, 'twice beside itself': 10, 'saturated': 7,
    'nearly black': 5, 'mosaic': 10, 'text on a screen': 10, 'a photograph': 6,
}  # fmt: skip


@pytest.fixture(scope='module')
def phantoms():
    return [
        phantom.draw(np.random.default_rng([8, i]), 288, positive=i % 2 == 0).image
        for i in range(10)
    ]


def test_phantoms_are_plausible(phantoms):
    assert not any(map(plausibility.note, phantoms))


def test_phantoms_of_other_shapes_sizes_and_contrasts_are_too(phantoms):
    for image in phantoms[:4]:
        for changed in (
            image[:, 10:-10], cv2.resize(image, (700, 900)), np.uint8(image * 0.6 + 40),
            cv2.copyMakeBorder(image, 0, 0, 30, 30, cv2.BORDER_CONSTANT), image[:, ::-1],
            np.uint8(255 * (image / 255) ** 1.5),
        ):  # fmt: skip
            assert plausibility.note(np.ascontiguousarray(changed)) is None


@pytest.mark.parametrize('name', CAUGHT)
def test_what_is_spoilt_is_noted(phantoms, name):
    spoil = benchmark.corruptions(np.random.default_rng(1))[name]
    images = [spoil(cv2.resize(image, (benchmark.SIDE,) * 2)) for image in phantoms]
    notes = [plausibility.note(image) for image in images]
    assert sum(note == plausibility.NOTE for note in notes) >= CAUGHT[name]


def test_small_pictures_are_not_judged():
    assert plausibility.note(np.zeros((300, 255), np.uint8)) is None
    assert plausibility.note(np.zeros((300, 256), np.uint8)) == plausibility.NOTE


def test_every_picture_has_features():
    """Also those on which a ratio or a correlation is not defined."""
    rng = np.random.default_rng(0)
    for image in (
        np.zeros((256, 256), np.uint8), np.full((256, 300), 255, np.uint8),
        np.tile(np.arange(256, dtype=np.uint8), (256, 1)), rng.integers(0, 2, (256, 256), np.uint8),
    ):  # fmt: skip
        found = plausibility.features(image)
        assert found.keys() == plausibility.BOUNDS.keys()
        assert np.isfinite(list(found.values())).all()
        assert plausibility.margin(found) < 0


def test_the_template_is_the_mean_phantom():
    assert plausibility.TEMPLATE.split() == benchmark.draw_template().split()


def test_the_note_is_in_the_table_and_the_image_is_predicted(run, phantoms, tmp_path):
    source = tmp_path / 'in'
    source.mkdir()
    make(source / 'a.dcm', phantoms[0])
    make(source / 'b.dcm', np.ascontiguousarray(np.rot90(phantoms[0])))
    cv2.imwrite(str(source / 'c.png'), 255 - phantoms[1])
    assert predict([run], source, tmp_path / 'out', seg='none') == 0
    rows = results(tmp_path / 'out')
    assert [row['status'] for row in rows] == ['ok'] * 3
    assert [plausibility.NOTE in row['reason'] for row in rows] == [False, True, True]


def test_the_area_under_the_curve_is_that_of_its_definition():
    sound, spoilt = np.array([0.5, 0.2, 0.2]), np.array([0.1, 0.2])
    assert benchmark.auroc(sound, spoilt) == pytest.approx((1 + 1 + 1 + 1 + 0.5 + 0.5) / 6)
