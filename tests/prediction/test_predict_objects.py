"""The DICOM objects of a prediction: which are written, that they agree, and what continues."""

import csv
import os

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumojax.errors import UsageError
from pneumojax.prediction.options import OBJECTS, Options
from tests.prediction.dicom_objects import errors
from tests.prediction.predictions import contents, predict, results
from tests.tiny_runs import write_run

KINDS = {
    'seg': 'Segmentation', 'sr': 'SR', 'secondary_capture': 'SCImage',
    'gsps': 'GrayscaleSoftcopyPresentationState',
}  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """It leaves some images without a marked area."""
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny', rule=(0.6, 30000, 0.55))


@pytest.fixture(scope='module')
def objects(run, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('objects') / 'out'
    assert predict([run], images, folder, outputs=OBJECTS) == 0
    return folder


def names(folder, kind):
    return sorted(os.listdir(folder / kind)) if (folder / kind).is_dir() else []


def marked(folder):
    rows = results(folder)
    found = [f'{row["ImageId"]}.dcm' for row in rows if row['area_px'] != '0']
    assert 0 < len(found) < len(rows)
    return found


def test_each_image_gets_what_applies_to_it(objects, images):
    everything = sorted(os.listdir(images))
    assert names(objects, 'seg') == names(objects, 'sr') == everything
    assert names(objects, 'secondary_capture') == names(objects, 'gsps') == marked(objects)
    assert {row['reason'] for row in results(objects)} == {''}


def test_dciodvfy_finds_no_error(objects):
    for kind, name in KINDS.items():
        for file in names(objects, kind):
            assert errors(objects / kind / file, name) == []


def test_objects_are_filed_with_the_radiograph(objects, images):
    series = {kind: set() for kind in OBJECTS}
    for kind in OBJECTS:
        for file in names(objects, kind):
            made, source = (pydicom.dcmread(f / file) for f in (objects / kind, images))
            assert made.StudyInstanceUID == source.StudyInstanceUID
            assert made.PatientName == source.PatientName
            assert made.PatientID == source.PatientID
            assert made.SpecificCharacterSet == 'ISO_IR 192'
            assert 'research, not for diagnosis' in made.SeriesDescription
            series[kind].add(made.SeriesInstanceUID)
    found = [uid for kind in OBJECTS for uid in series[kind]]
    assert len(found) == len(set(found))  # no series holds objects of two kinds


def test_the_report_says_what_the_table_says(objects):
    for row in results(objects):
        file = f'{row["ImageId"]}.dcm'
        segmentation = pydicom.dcmread(objects / 'seg' / file)
        report = highdicom.sr.srread(objects / 'sr' / file)
        groups = report.content.get_planar_roi_measurement_groups()
        if file in marked(objects):
            refers = [
                item.referenced_sop_instance_uid
                for item in groups[0][0].ContentSequence
                if item.value_type.value == 'IMAGE'
            ]
            assert segmentation.SOPInstanceUID in refers
        else:
            groups = report.content.get_image_measurement_groups()
        probability, pixels, area = (m.value for m in groups[0].get_measurements())
        assert probability == pytest.approx(float(row['probability']), abs=1e-6)
        assert pixels == int(row['area_px'])
        assert area == pytest.approx(float(row['area_mm2']), abs=0.06)
        parameters = {
            str(item.value)
            for item in groups[0][0].ContentSequence
            if item.name.meaning == 'Algorithm Parameters'
        }
        assert {'top=0.6', 'area=30000', 'bottom=0.55', 'weights=tiny0@7'} <= parameters


def test_segs_for_positive_images_alone(run, images, objects, tmp_path):
    folder = tmp_path / 'out'
    options = {'outputs': ('seg', 'sr'), 'seg_for': 'positive'}
    assert predict([run], images, folder, **options) == 0
    assert names(folder, 'seg') == marked(folder)
    assert names(folder, 'sr') == sorted(os.listdir(images))
    before = contents(folder)
    assert predict([run], images, folder, **options) == 0  # there is nothing left to do
    assert contents(folder) == before
    with pytest.raises(UsageError, match=r"another prediction \(seg_for: 'positive' -> 'all'\)"):
        predict([run], images, folder, outputs=('seg', 'sr'))
    with pytest.raises(UsageError, match=r"another prediction \(seg: 'binary' -> 'none'"):
        predict([run], images, folder, outputs=('sr',), seg_for='positive')


def test_an_object_that_was_not_asked_for_is_added(run, images, tmp_path):
    source, folder = images / 'image3.dcm', tmp_path / 'out'
    assert predict([run], source, folder) == 0
    assert predict([run], source, folder, outputs=('seg', 'sr')) == 0
    assert names(folder, 'sr') == ['image3.dcm']
    (folder / 'sr/image3.dcm').write_bytes(b'damaged')
    assert predict([run], source, folder, outputs=('seg', 'sr')) == 0
    assert pydicom.dcmread(folder / 'sr/image3.dcm').Modality == 'SR'


def test_no_object_is_made_of_other_pictures(run, tmp_path):
    (tmp_path / 'in').mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'in/a.png')
    assert predict([run], tmp_path / 'in', tmp_path / 'out', outputs=OBJECTS) == 0
    assert not any((tmp_path / 'out' / kind).exists() for kind in OBJECTS)
    with open(tmp_path / 'out/results.csv', newline='', encoding='utf-8') as file:
        (row,) = csv.DictReader(file)
    assert row['reason'] == 'not a DICOM file: no SEG, and no area in mm²'


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'outputs': ('seg', 'pdf')}, "--outputs has 'pdf': expected some of seg, sr, "),
        ({'outputs': ('seg',), 'seg': 'none'}, '--outputs asks for SEG files and --seg=none'),
        ({'seg_for': 'some'}, "--seg_for is 'some': expected one of 'all', 'positive'"),
    ],
)
def test_options_that_contradict(options, words):
    with pytest.raises(UsageError, match=words):
        Options(**options)


def test_no_seg_by_either_flag():
    assert Options().writes('seg')
    assert not Options(seg='none').writes('seg')
    assert not Options(outputs=('sr',)).writes('seg')
    assert not Options(outputs=()).writes('seg')
    assert Options(outputs=('sr',), seg='none').identity == Options(outputs=('sr',)).identity
