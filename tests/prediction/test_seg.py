"""DICOM SEG: dciodvfy finds no error, and what is read back is what was written."""

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom import uid

from pneumojax.prediction import reference, seg
from tests.prediction.dicom_objects import (
    ALGORITHM,
    MALFORMED,
    MASKS,
    RNG,
    SHAPE,
    errors,
    header,
)

PROBABILITY = RNG.random(SHAPE).astype(np.float32)


def write(path, source, result, kind):
    made = seg.make(source, result, kind=kind, algorithm=ALGORITHM, key='x')
    reference.write(path, made)


def by_highdicom(path):
    """The mask that highdicom assigns to the pixels of the radiograph."""
    return highdicom.seg.segread(path).get_pixels_by_source_instance(['1.2.3.1'])[0, :, :, 0]


@pytest.mark.parametrize('name', MASKS)
def test_a_binary_file(tmp_path, name):
    path = tmp_path / 'x.dcm'
    write(path, header(), MASKS[name], kind='binary')
    read = pydicom.dcmread(path)
    np.testing.assert_array_equal(read.pixel_array, MASKS[name])
    np.testing.assert_array_equal(by_highdicom(path), MASKS[name])
    assert read.SeriesDescription == 'Pneumothorax: research, not for diagnosis'
    assert [p.name for p in tmp_path.iterdir()] == ['x.dcm']
    assert errors(path, 'Segmentation') == []


def test_a_fractional_file(tmp_path):
    path = tmp_path / 'x.dcm'
    write(path, header(), PROBABILITY, kind='fractional')
    read = pydicom.dcmread(path)
    assert read.SegmentationType == 'FRACTIONAL'
    assert read.SegmentationFractionalType == 'PROBABILITY'
    np.testing.assert_allclose(read.pixel_array / 255, PROBABILITY, atol=0.5 / 255 + 1e-6)
    assert errors(path, 'Segmentation') == []


@pytest.mark.parametrize('name', MASKS)
@pytest.mark.parametrize('spacing', [[0.143, 0.15], None])
def test_simpleitk_reads_the_same_mask(tmp_path, name, spacing):
    itk = pytest.importorskip('SimpleITK', reason='SimpleITK is not installed')
    path = tmp_path / 'x.dcm'
    write(path, header(PixelSpacing=spacing), MASKS[name], kind='binary')
    image = itk.ReadImage(str(path))
    found, whole = itk.GetArrayFromImage(image)[0] > 0, MASKS[name].size // 8 * 8
    # Of a last byte that is not full, GDCM leaves the pixels to chance.
    np.testing.assert_array_equal(found.flat[:whole], MASKS[name].flat[:whole])
    columns, rows, _ = image.GetSpacing()
    assert [rows, columns] == pytest.approx(spacing or [1, 1])


def test_spacing_is_stated_if_it_is_known():
    def measures(**tags):
        source = header(PixelSpacing=None, **tags)
        made = seg.make(source, MASKS['some'], kind='binary', algorithm=ALGORITHM, key='x')
        shared = made.SharedFunctionalGroupsSequence[0]
        return shared, shared.get('PixelMeasuresSequence')

    for keyword in ('ImagerPixelSpacing', 'NominalScannedPixelSpacing'):
        assert measures(**{keyword: [0.2, 0.3]})[1][0].PixelSpacing == [0.2, 0.3]
    shared, found = measures()
    assert found is None
    assert 'PlaneOrientationSequence' not in shared  # readers want both or neither


def test_an_empty_mask_takes_little_space(tmp_path):
    path = tmp_path / 'x.dcm'
    write(path, header(), np.zeros((1024, 1024), np.uint8), kind='binary')
    read = pydicom.dcmread(path)
    assert not read.pixel_array.any()
    assert path.stat().st_size < 20_000
    assert read.file_meta.TransferSyntaxUID == uid.RLELossless
    assert (read.SegmentationType, read.SegmentationFractionalType) == ('FRACTIONAL', 'OCCUPANCY')


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


@pytest.mark.parametrize('tags', MALFORMED)
def test_malformed_headers_give_sound_files(tmp_path, tags):
    path = tmp_path / 'x.dcm'
    write(path, header(**tags), MASKS['some'], kind='binary')
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, MASKS['some'])
    assert errors(path, 'Segmentation') == []


@pytest.mark.parametrize(
    ('tags', 'emptied'),
    [
        ({}, []),
        ({'PatientName': 'a' * 65, 'PatientID': 'b' * 80}, ['PatientName', 'PatientID']),
        ({'PatientID': 'a\\b', 'AccessionNumber': '1' * 20}, ['PatientID', 'AccessionNumber']),
        ({'PatientID': ['1', '2'], 'PatientSex': 'Male'}, ['PatientID', 'PatientSex']),
        ({'StudyDate': '2.1.2024', 'StudyID': '1' * 17}, ['StudyDate', 'StudyID']),
        ({'StudyDate': '19700230', 'StudyTime': '256000'}, ['StudyDate', 'StudyTime']),
        ({'PatientName': 'A\0B', 'StudyID': '1\x012'}, ['PatientName', 'StudyID']),
        ({'PatientID': '', 'PatientSex': None, 'PatientName': ' '}, []),
    ],
)
def test_it_is_known_which_values_are_left_out(tags, emptied):
    assert reference.emptied(header(**tags)) == emptied
    made = seg.make(header(**tags), MASKS['some'], kind='binary', algorithm=ALGORITHM, key='x')
    assert all(made[keyword].is_empty for keyword in emptied)


@pytest.mark.parametrize(
    'tags',
    [{'SOPInstanceUID': '../../etc'}, {'StudyInstanceUID': None}, {'SeriesInstanceUID': '1.' * 40}],
)
def test_sources_that_cannot_be_referenced(tmp_path, tags):
    with pytest.raises(reference.NoReference, match=next(iter(tags))):
        write(tmp_path / 'x.dcm', header(**tags), MASKS['some'], kind='binary')
    assert list(tmp_path.iterdir()) == []
