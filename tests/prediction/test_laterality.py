"""The side of the patient, where it is certain."""

import numpy as np
import pytest

from pneumojax.prediction.laterality import side

PA = ['L', 'F']


def mask(*boxes, width=100):
    made = np.zeros((50, width), np.uint8)
    for left, right in boxes:
        made[10:20, left:right] = 1
    return made


@pytest.mark.parametrize(
    ('boxes', 'orientation', 'expected'),
    [
        ([(5, 30)], PA, 'right'),  # the patient faces the viewer
        ([(70, 90)], PA, 'left'),
        ([(5, 30)], ['R', 'F'], 'left'),
        ([(70, 90)], ['R', 'F'], 'right'),
        ([(5, 30)], ['L', 'H'], 'right'),  # upside down
        ([(5, 30), (70, 90)], PA, 'bilateral'),
        ([(5, 30), (35, 40)], PA, 'right'),
        ([(5, 45)], PA, 'right'),
        ([(5, 46)], PA, 'unknown'),  # it reaches the middle
        ([(54, 90)], PA, 'unknown'),
        ([(5, 30), (48, 52)], PA, 'unknown'),
        ([(5, 90)], PA, 'unknown'),
        ([], PA, 'unknown'),
        ([(5, 30)], '', 'unknown'),
        ([(5, 30)], ['A', 'F'], 'unknown'),  # a lateral view
        ([(5, 30)], ['LA', 'F'], 'unknown'),  # an oblique one
        ([(5, 30)], ['F', 'L'], 'unknown'),  # lying on its side
        ([(5, 30)], ['P', 'F'], 'unknown'),
        ([(5, 30)], ['L', 'A'], 'unknown'),
    ],
)
def test_side(boxes, orientation, expected):
    assert side(mask(*boxes), orientation) == expected


def test_mirroring_swaps_the_sides():
    other = {'left': 'right', 'right': 'left'}
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = rng.integers(0, 90)
        drawn = mask((start, start + rng.integers(1, 20)), width=int(rng.integers(91, 130)))
        found = side(drawn, PA)
        assert side(drawn[:, ::-1], PA) == other.get(found, found)
        assert side(drawn[:, ::-1], ['R', 'F']) == found
