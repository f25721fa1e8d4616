"""What several files of this room's tests start from."""

import numpy as np
import pytest

from pneumojax.data.datasets import siim
from pneumojax.data.phantoms import phantom
from tests.data.datasets.folder_images import drawing, write


@pytest.fixture
def root(tmp_path):
    """Images a to d: two positives, a black mask, and one of which nothing is known."""
    root = tmp_path / 'own'
    for seed, name in enumerate('abcd'):
        image, mask = drawing(seed, positive=name in 'ab')
        write(root / 'images' / f'{name}.png', image)
        if name != 'd':
            write(root / 'masks' / f'{name}.png', mask * np.uint8(255))
    return root


@pytest.fixture
def films(tmp_path):
    """Six phantoms as DICOM files, without Kaggle's CSV; and their true examples."""
    root = phantom.write_dataset(
        tmp_path / 'films', num_images=6, size=64, seed=5, positive_share=0.5
    )
    true = {e.image_id: e for e in siim.find(root).examples}
    (root / 'train-rle.csv').unlink()
    return root, true


@pytest.fixture
def path(tmp_path):
    """Where to write a DICOM file."""
    return tmp_path / 'image.dcm'


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Seven phantoms."""
    root = tmp_path_factory.mktemp('data') / 'phantoms'
    phantom.write_dataset(root, num_images=7, size=32, seed=3, positive_share=0.5)
    return siim.find(root).examples
