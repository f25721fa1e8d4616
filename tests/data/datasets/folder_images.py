"""A folder of your own images and masks, drawn for tests."""

import cv2
import numpy as np

from pneumojax.data.datasets import example as example_lib
from pneumojax.data.files import headers
from pneumojax.data.phantoms import phantom
from pneumojax.prediction import reference, seg
from pneumojax.system import limits

SHAPE = 40, 56  # not square


def drawing(seed, positive=True):
    """A phantom's image and mask, cut to SHAPE; the mask of a positive is not empty."""
    drawn = phantom.draw(np.random.default_rng(seed), 64, positive)
    image, mask = (part[: SHAPE[0], : SHAPE[1]].copy() for part in drawn[:2])
    mask[0, :3] |= np.uint8(positive)
    return image, mask


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def table(root, text):
    (root / 'table.csv').write_text(text)


def ids(examples):
    return [e.image_id for e in examples]


def write_seg(folder, example, kind='binary', value=0.7):
    mask = example_lib.load(example)[1]
    folder.mkdir(exist_ok=True)
    path = folder / f'result-{example.image_id[-9:]}.dcm'
    result = mask if kind == 'binary' else mask.astype(np.float32) * np.float32(value)
    algorithm = reference.Algorithm('0', 'a run', {})
    with limits.BoundedFile(example.path) as file:
        header = headers.read(file)
    reference.write(path, seg.make(header, result, kind=kind, algorithm=algorithm, key='x'))
    return path
