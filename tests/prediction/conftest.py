"""A run, images and their prediction, for several files of this folder's tests."""

import pytest

from tests.prediction.predictions import predict
from tests.tiny_runs import write_run


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny', rule=(0.6, 300, 0.55))


@pytest.fixture(scope='session')
def output(run, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('outputs') / 'whole'
    assert predict([run], images, folder, heatmap=True) == 0
    return folder
