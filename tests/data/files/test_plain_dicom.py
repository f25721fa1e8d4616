"""Plain files: taken apart as pydicom would, and left to it where they are anything else."""

import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from pneumojax.data.files import dicom
from pneumojax.data.files.plain_dicom import take_apart
from pneumojax.data.files.silence import quiet_libraries
from tests.data.files.dicom_writing import RAMP, lookup, picture, write, write_jpeg


def test_plain_files_give_what_pydicom_gives(path):
    tags = {'PixelSpacing': [0.143, 0.143], 'SpecificCharacterSet': 'ISO_IR 100'}
    for more in ({}, tags, {'NumberOfFrames': 1}, {'PatientComments': 'x' * 999}):
        write_jpeg(path, picture(), **more)
        dataset = pydicom.dcmread(path)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        assert take_apart(path.read_bytes()) == (*picture().shape, frame)


@pytest.mark.parametrize(
    'tags',
    [
        {'PixelSpacing': [0.1, 0.2]},
        {'PixelSpacing': [0, 0]},
        {'ImagerPixelSpacing': [0.1, 0.2]},
        {'PixelAspectRatio': [1, 1]},
        {'SpecificCharacterSet': ['ISO 2022 IR 6', 'ISO 2022 IR 87']},
        {'NumberOfFrames': 2},
        {'PhotometricInterpretation': 'MONOCHROME1'},
        {'PixelRepresentation': 1},
        {'BitsStored': 7},
        {'BitsAllocated': 16},
        {'SamplesPerPixel': None},
        {'Rows': 0},
        {'PixelPaddingValue': 0},
        {'RescaleSlope': 1},
        {'WindowCenter': 128},
        {'VOILUTSequence': lookup(0, range(256), 8)},
    ],
)
def test_what_says_more_is_left_to_pydicom(path, tags):
    assert take_apart(write_jpeg(path, picture(), **tags).read_bytes()) is None


def test_other_syntaxes_and_several_fragments_are_left_to_pydicom(path):
    assert take_apart(write(path, RAMP).read_bytes()) is None
    assert take_apart(write_jpeg(path, picture(), uid.JPEGExtended12Bit).read_bytes()) is None
    write_jpeg(path, picture())
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    for has_table in (False, True):
        dataset.PixelData = encapsulate([frame], fragments_per_frame=2, has_bot=has_table)
        dataset.save_as(path)
        assert take_apart(path.read_bytes()) is None
        dataset.PixelData = encapsulate([frame], has_bot=has_table)
        dataset.save_as(path)
        assert take_apart(path.read_bytes()).frame == frame


def test_what_stands_before_the_pixels_must_be_elements(path):
    whole = write_jpeg(path, picture()).read_bytes()
    pixels = whole.index(b'\xe0\x7f\x10\0OB')
    assert take_apart(whole) is not None
    for more in (b'\0' * 4, b'\xfe\xff\x0d\xe0\0\0\0\0'):  # too few bytes; the end of an item
        assert take_apart(whole[:pixels] + more + whole[pixels:]) is None


@quiet_libraries()
def test_damage_anywhere_is_judged_as_without_it(path, monkeypatch):
    whole = write_jpeg(path, picture(), PixelSpacing=[0.143, 0.143]).read_bytes()
    start = whole.index(b'\xff\xd8')
    outside = [*range(128, start + 24), *range(len(whole) - 12, len(whole))]
    damaged = [whole[:length] for length in outside]
    for at in outside:
        for value in {0, 1, 255, whole[at] ^ 1, whole[at] ^ 0x20} - {whole[at]}:
            damaged.append(whole[:at] + bytes([value]) + whole[at + 1 :])
    plain = [take_apart(data) is not None for data in damaged]
    assert sum(plain) > 100  # what changes names, dates and UIDs only
    kept = [_outcome(path, data) for data, so in zip(damaged, plain, strict=True) if so]
    monkeypatch.setattr(dicom, 'take_apart', lambda _: None)
    left = [_outcome(path, data) for data, so in zip(damaged, plain, strict=True) if so]
    assert kept == left


def _outcome(path, data):
    """The image, or the error."""
    path.write_bytes(data)
    try:
        image = dicom.read(path, square=True)
    except dicom.DicomError as error:
        return str(error)
    return image.dtype, image.shape, image.tobytes()
