"""A folder of radiographs without masks: every image is used, and nothing is missed."""

import shutil

import pydicom
import pytest

from configs import base
from pneumojax.data import dataset
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import folder_unlabelled
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from tests.data.datasets.folder_images import ids, table


@pytest.fixture
def warnings(monkeypatch):
    """What is logged as a warning anywhere in the package: there is one logger."""
    seen = []
    monkeypatch.setattr(
        folder_unlabelled.log, 'warning', lambda text, *values: seen.append(text % values)
    )
    return seen


def config_of(root, tmp_path):
    config = base.get_config()
    config.image_size = 16
    config.data.root, config.data.cache = str(root), str(tmp_path / 'cache')
    config.data.num_folds = 3
    config.loss.restoration = 1.0
    return config


def test_a_folder_of_dicom_files_alone_is_enough(films, tmp_path, warnings):
    root, true = films
    data = dataset.load(config_of(root, tmp_path))
    assert ids(data.examples) == sorted(true)
    assert (len(data.train), len(data.validation)) == (4, 2)
    assert not data.positive.any()
    assert warnings == []


def test_masks_that_are_there_are_no_radiographs_and_are_left_alone(root):
    examples = folder_unlabelled.find(str(root))
    assert ids(examples) == ['a', 'b', 'c', 'd']
    assert not any(e.positive for e in examples)
    assert not example_lib.load(examples[0])[1].any()


def test_in_kaggles_layout_images_without_a_row_are_used_too(tmp_path):
    root = phantom.write_dataset(
        tmp_path / 'siim', num_images=6, size=32, seed=1, positive_share=0.5
    )
    files = sorted(root.rglob('*.dcm'))
    shutil.copy(files[0], root / 'unlisted.dcm')
    header = pydicom.dcmread(root / 'unlisted.dcm')
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = '1.2.3'
    header.save_as(root / 'unlisted.dcm')
    found = ids(dataset.find(config_of(root, tmp_path).data, unlabelled=True))
    assert found == sorted([*(f.stem for f in files), 'unlisted'])


def test_patients_come_from_the_table_the_list_or_the_header(films, tmp_path):
    root, true = films
    names, plain = sorted(true), folder_unlabelled.find(str(root))
    stated = {name: pydicom.dcmread(true[name].path).PatientID for name in names}
    assert {e.image_id: e.patient_id for e in plain} == stated
    patients = tmp_path / 'patients.csv'
    patients.write_text(f'ImageId,PatientId\n{names[0]},p\n{names[1]},p\n')  # not all of them
    listed = folder_unlabelled.find(str(root), patients=str(patients))
    assert [e.patient_id for e in listed] == ['p', 'p', *(stated[name] for name in names[2:])]
    table(
        root, f'ImageId,PatientId,split\n{names[0]},q,train\n{names[1]},r,val\n{names[2]},s,test\n'
    )
    tabled = folder_unlabelled.find(str(root), patients=str(patients))
    assert [(e.patient_id, e.side) for e in tabled] == [('q', 'train'), ('r', 'validation')]


def test_one_patient_id_for_all_is_none(films):
    root, true = films
    for example in true.values():
        header = pydicom.dcmread(example.path)
        header.PatientID = 'anonymous'
        header.save_as(example.path)
    assert [e.patient_id for e in folder_unlabelled.find(str(root))] == sorted(true)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('none')
    with pytest.raises(UsageError, match='no radiograph to learn from'):
        folder_unlabelled.find(str(tmp_path))
