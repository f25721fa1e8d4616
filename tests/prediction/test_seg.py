"""DICOM SEG: dciodvfy finds no error, and what is read back is what was written."""

import subprocess

import numpy as np
import pydicom
import pytest
from pydicom import uid

from pneumojax.prediction import seg

ALGORITHM = seg.Algorithm('0.1.0', 'stage2@180', {'top': '0.7', 'area': '800', 'bottom': '0.3'})
SHAPE = (33, 57)  # neither side a multiple of 8: bits are packed
RNG = np.random.default_rng(0)
MASKS = {
    'some': (RNG.random(SHAPE) > 0.7).astype(np.uint8),
    'none': np.zeros(SHAPE, np.uint8),
    'all': np.ones(SHAPE, np.uint8),
}
PROBABILITY = RNG.random(SHAPE).astype(np.float32)


def header(**tags):
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = '1.2.3.1', '1.2.3.2'
    dataset.SeriesInstanceUID = '1.2.3.3'
    dataset.PatientName, dataset.PatientID = 'Doe^Jane', '17'
    dataset.PatientSex, dataset.PatientBirthDate = 'F', '19700102'
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = '20240102', '101112', '5'
    dataset.PatientOrientation = ['L', 'F']
    # As foreign files come: nothing is checked when it is set.
    old = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                tag = pydicom.datadict.tag_for_keyword(keyword)
                vr = pydicom.datadict.dictionary_VR(tag)
                ignore = pydicom.config.IGNORE
                dataset[tag] = pydicom.DataElement(tag, vr, value, validation_mode=ignore)
    finally:
        pydicom.config.settings.reading_validation_mode = old
    return dataset


def errors(path):
    """What dciodvfy calls an error."""
    try:
        done = subprocess.run(['dciodvfy', '-new', path], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip('dciodvfy (dicom3tools) is not installed')
    assert 'Segmentation' in done.stderr + done.stdout
    return [line for line in (done.stderr + done.stdout).splitlines() if 'Error' in line]


@pytest.mark.parametrize('name', MASKS)
def test_a_binary_file(tmp_path, name):
    path = tmp_path / 'x.dcm'
    seg.write(path, header(), MASKS[name], kind='binary', algorithm=ALGORITHM, key='x')
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, MASKS[name])
    assert [p.name for p in tmp_path.iterdir()] == ['x.dcm']
    assert errors(path) == []


def test_a_fractional_file(tmp_path):
    path = tmp_path / 'x.dcm'
    seg.write(path, header(), PROBABILITY, kind='fractional', algorithm=ALGORITHM, key='x')
    read = pydicom.dcmread(path)
    assert read.SegmentationType == 'FRACTIONAL'
    assert read.SegmentationFractionalType == 'PROBABILITY'
    np.testing.assert_allclose(read.pixel_array / 255, PROBABILITY, atol=0.5 / 255 + 1e-6)
    assert errors(path) == []


def test_what_it_says_of_source_and_algorithm():
    made = seg.make(header(), MASKS['some'], kind='binary', algorithm=ALGORITHM, key='x')
    assert made.SOPClassUID == uid.SegmentationStorage
    assert (made.PatientName, made.PatientID) == ('Doe^Jane', '17')
    assert made.StudyInstanceUID == '1.2.3.2'
    assert made.SeriesInstanceUID != '1.2.3.3'
    series = made.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == '1.2.3.3'
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == '1.2.3.1'
    segment = made.SegmentSequence[0]
    code = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ('36118008', 'SCT')
    assert segment.SegmentAlgorithmType == 'AUTOMATIC'
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ('pneumojax', '0.1.0')
    assert algorithm.AlgorithmSource == 'stage2@180'


def test_instances_differ_where_sources_or_files_do():
    def instance(key='x', **tags):
        made = seg.make(header(**tags), MASKS['some'], kind='binary', algorithm=ALGORITHM, key=key)
        return made.SOPInstanceUID

    assert instance() == instance()
    assert len({instance(), instance(key='y'), instance(SOPInstanceUID='1.2.3.9')}) == 3


@pytest.mark.parametrize(
    'tags',
    [
        {'PatientName': '<script>alert(1)</script>', 'PatientSex': 'Male'},
        {'PatientName': '山田^太郎', 'StudyID': 'more than sixteen characters'},
        {'PatientName': 'a' * 300, 'PatientID': 'b' * 300},
        {'PatientID': ['1', '2'], 'StudyDate': '2024', 'StudyTime': '99:99'},
        {'PatientBirthDate': 'May 1970', 'PatientOrientation': 'A'},
        {'PatientOrientation': ['Q', 'Z'], 'InstanceNumber': '99999999999'},
        dict.fromkeys(
            ('PatientName', 'PatientID', 'PatientSex', 'PatientBirthDate', 'StudyDate'), None
        ),
    ],
)
def test_malformed_headers_give_sound_files(tmp_path, tags):
    path = tmp_path / 'x.dcm'
    seg.write(path, header(**tags), MASKS['some'], kind='binary', algorithm=ALGORITHM, key='x')
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, MASKS['some'])
    assert errors(path) == []


@pytest.mark.parametrize(
    ('tags', 'emptied'),
    [
        ({}, []),
        ({'PatientName': 'a' * 65, 'PatientID': 'b' * 80}, ['PatientName', 'PatientID']),
        ({'PatientID': 'a\\b', 'AccessionNumber': '1' * 20}, ['PatientID', 'AccessionNumber']),
        ({'PatientID': ['1', '2'], 'PatientSex': 'Male'}, ['PatientID', 'PatientSex']),
        ({'StudyDate': '2.1.2024', 'StudyID': '1' * 17}, ['StudyDate', 'StudyID']),
        ({'PatientID': '', 'PatientSex': None, 'PatientName': ' '}, []),
    ],
)
def test_it_is_known_which_values_are_left_out(tags, emptied):
    assert seg.emptied(header(**tags)) == emptied
    made = seg.make(header(**tags), MASKS['some'], kind='binary', algorithm=ALGORITHM, key='x')
    assert all(made[keyword].is_empty for keyword in emptied)


@pytest.mark.parametrize(
    'tags',
    [{'SOPInstanceUID': '../../etc'}, {'StudyInstanceUID': None}, {'SeriesInstanceUID': '1.' * 40}],
)
def test_sources_that_cannot_be_referenced(tmp_path, tags):
    with pytest.raises(seg.NoReference, match=next(iter(tags))):
        seg.write(
            tmp_path / 'x.dcm', header(**tags), MASKS['some'],
            kind='binary', algorithm=ALGORITHM, key='x',
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
