"""A run, images and their prediction, for several files of this room's tests."""

import shutil

import pydicom
import pytest

from pneumojax.data import phantom
from pneumojax.inference.predict import Options, predict
from tests.inference.tiny_runs import write_run


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny', rule=(0.6, 300, 0.55))


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """Nine phantoms: JPEG, MONOCHROME1 and 12 bits; one of them wide, one with wide pixels."""
    root = tmp_path_factory.mktemp('images')
    phantom.write_dataset(root / 'set', num_images=9, size=96, seed=4, positive_share=0.4)
    for i, path in enumerate(sorted((root / 'set').rglob('*.dcm'))):
        dataset = pydicom.dcmread(path)
        if i < 2:
            dataset.decompress(generate_instance_uid=False)
            dataset.PixelData = dataset.pixel_array[:60].tobytes()
            dataset.Rows = 60
            dataset.PixelSpacing = [0.2, 0.2] if i == 0 else [0.3, 0.15]
        dataset.save_as(root / f'image{i}.dcm')
    shutil.rmtree(root / 'set')
    return root


@pytest.fixture(scope='session')
def output(run, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('outputs') / 'whole'
    assert predict([run], images, folder, Options(heatmap=True)) == 0
    return folder
