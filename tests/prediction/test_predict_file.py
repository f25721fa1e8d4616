"""One file at a time, as a node predicts: what predicting its folder gives, and nothing else."""

import pydicom
import pytest

from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict_file
from pneumojax.prediction.streaming import Item
from tests.prediction.predictions import contents, results


@pytest.fixture(scope='module')
def ensemble(run):
    return Ensemble([run], 'jax', images=1)


def test_it_writes_the_same_dicom_files_as_a_prediction_of_the_folder(
    ensemble, images, output, tmp_path
):
    for expected in results(output):
        path = images / expected['file']
        row = predict_file(ensemble, Item(str(path), path.name, path.stem), tmp_path, Options())
        assert row['status'] == 'ok'
        assert str(row['area_px']) == expected['area_px']
    theirs = {n: c for n, c in contents(output).items() if n.endswith('.dcm')}
    assert contents(tmp_path) == theirs


def test_a_file_about_which_nothing_can_be_made_is_an_error(ensemble, images, tmp_path):
    dataset = pydicom.dcmread(images / 'image3.dcm')
    dataset.StudyInstanceUID = ''
    dataset.save_as(tmp_path / 'orphan.dcm')
    item = Item(str(tmp_path / 'orphan.dcm'), 'orphan.dcm', 'orphan')
    row = predict_file(ensemble, item, tmp_path, Options())
    assert (row['status'], row['written']) == ('error', {})
    assert row['reason'] == 'no SEG: the file has no StudyInstanceUID'


def test_a_file_that_is_no_radiograph_gives_none(ensemble, tmp_path):
    (tmp_path / 'note.txt').write_text('no image')
    item = Item(str(tmp_path / 'note.txt'), 'note.txt', 'note')
    row = predict_file(ensemble, item, tmp_path / 'out', Options())
    assert row['status'] == 'skipped'
    assert 'written' not in row
    assert not (tmp_path / 'out').exists()
