"""What the tests of the cache share: its size in them, and whether it is right."""

import pathlib

import numpy as np

from pneumojax.data import geometry
from pneumojax.data.datasets import example as example_lib

SIZE = 24


def assert_right(cache, examples, size=SIZE):
    assert cache.image_ids == [e.image_id for e in examples]
    assert len(cache) == len(examples)
    for i, example in enumerate(examples):
        image, mask = example_lib.load(example)
        assert cache.shapes[i] == image.shape
        got_image, got_mask = cache[i]
        np.testing.assert_array_equal(got_image, geometry.fit_image(image, size))
        np.testing.assert_array_equal(got_mask, geometry.fit_mask(mask, size))


def copied(drawn, folder):
    """The same images as files of their own, which a test may change."""
    folder.mkdir()
    examples = []
    for e in drawn[:2]:
        path = folder / f'{e.image_id}.dcm'
        path.write_bytes(pathlib.Path(e.path).read_bytes())
        examples.append(example_lib.Example(e.image_id, str(path), e.rles, e.patient_id))
    return examples
