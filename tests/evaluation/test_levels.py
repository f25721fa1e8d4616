"""Levels give exactly the masks that probabilities give, and a damaged file gives none."""

import numpy as np
import pytest

from pneumojax.errors import UsageError
from pneumojax.evaluation import levels, rules
from pneumojax.evaluation.thresholds import EMPTY, GRID, HALF


def test_masks_of_every_threshold_of_the_grid():
    rng = np.random.default_rng(0)
    exact = np.arange(0, 1001, dtype=np.float32) / 1000  # on the edge of every bin
    probability = np.concatenate([exact, rng.random(40 * 40 - len(exact), np.float32)])
    probability = probability.reshape(40, 40)
    level = levels.of(probability)
    for top in GRID.tops:
        for bottom in {top, *(b for b in GRID.bottoms if b <= top)}:
            rule = rules.Rule(top, 100, bottom, 1600, region=3)
            np.testing.assert_array_equal(levels.mask(rule, level), rules.apply(rule, probability))
    for rule in (HALF, EMPTY):
        np.testing.assert_array_equal(levels.mask(rule, level), rules.apply(rule, probability))


@pytest.mark.parametrize('threshold', [0.04, 0.055, 0.999])
def test_other_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match='a multiple of'):
        levels.mask(rules.Rule(threshold, 0, threshold), np.zeros((2, 2), np.uint8))


def test_a_file_is_whole_or_not_there_and_of_what_is_asked_for(tmp_path):
    path, images = tmp_path / levels.FILE, np.random.default_rng(0).random((3, 20, 30))
    with pytest.raises(ValueError, match='probabilities'), levels.writing(path, 'these') as writer:
        writer.add(images[0] + 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='cannot be read'):
        levels.Levels(path, 'these')
    with levels.writing(path, 'these') as writer:
        for image in images:
            writer.add(image)
    kept = levels.Levels(path, 'these')
    for number, image in enumerate(images):
        np.testing.assert_array_equal(kept[number], levels.of(image))
    with pytest.raises(ValueError, match='of another evaluation'):
        levels.Levels(path, 'others')
    with pytest.raises(UsageError, match=r'levels\.zip is damaged; delete it'):
        kept[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    damaged = levels.Levels(path, 'these')
    with pytest.raises(UsageError, match=r'levels\.zip is damaged; delete it'):
        [damaged[number] for number in range(3)]
    path.write_bytes(data[:-40])
    with pytest.raises(ValueError, match='cannot be read'):
        levels.Levels(path, 'these')
