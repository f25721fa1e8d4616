"""DICOM files that give no image: each named with its reason, none with its patient."""

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file

from pneumojax.data.files import dicom, pixel_data
from tests.data.files.dicom_writing import RAMP, assert_refused, lookup, picture, write, write_jpeg


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('SC_rgb_jpeg_dcmtk.dcm', 'colour'),
        ('examples_palette.dcm', 'colour'),
        ('SC_rgb_rle_2frame.dcm', '2 frames'),
        ('rtdose.dcm', '15 frames'),
        ('reportsi.dcm', 'no pixel data'),
        ('rtplan.dcm', 'no pixel data'),
        ('ExplVR_LitEndNoMeta.dcm', 'no pixel data'),
        ('MR_truncated.dcm', 'cut short: 8130 of 8192 bytes'),
        ('README.txt', 'not a DICOM file'),
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_pydicoms_files_without_a_grey_image(name, expected):
    assert_refused(get_testdata_file(name, download=False), expected)


def test_what_is_no_file(tmp_path):
    assert_refused(tmp_path / 'absent.dcm', 'no such file')
    assert_refused(tmp_path, 'cannot be read')
    (tmp_path / 'empty.dcm').touch()
    assert_refused(tmp_path / 'empty.dcm', 'not a DICOM file')
    cv2.imwrite(str(tmp_path / 'a.png'), RAMP)
    assert_refused(tmp_path / 'a.png', 'not a DICOM file')


@pytest.mark.parametrize(
    ('tags', 'expected'),
    [
        ({'Rows': None, 'BitsStored': None}, 'the tags Rows, BitsStored are missing'),
        ({'PixelData': None}, 'no pixel data'),
        ({'Rows': 0}, 'claims 0 x 32'),
        ({'Rows': 65535, 'Columns': 65535}, 'claims 65535 x 65535 pixels, more than'),
        ({'Rows': 9}, 'cut short: 256 of 288 bytes'),
        ({'NumberOfFrames': 2}, '2 frames'),
        ({'SamplesPerPixel': 3, 'PhotometricInterpretation': 'RGB'}, 'colour'),
        ({'PhotometricInterpretation': 'PALETTE COLOR'}, 'colour'),
        ({'BitsStored': 0}, '0 of 8 bits'),
        ({'BitsStored': 12}, '12 of 8 bits'),
        ({'BitsAllocated': 64, 'BitsStored': 64}, '64 of 64 bits'),
        ({'PixelRepresentation': 64}, 'neither signed nor unsigned'),
    ],
)
def test_tags_that_make_no_image(path, tags, expected):
    assert_refused(write(path, RAMP, **tags), expected)


@pytest.mark.parametrize(
    ('tags', 'refused'),
    [
        ({'PixelSpacing': [0.2, 0.1]}, True),
        ({'PixelAspectRatio': [1, 2]}, True),
        ({'ImagerPixelSpacing': [0.1, 0.2], 'PixelSpacing': [0.1, 0.1]}, False),
        ({'PixelSpacing': [0.1, 0.1005]}, False),
        ({'PixelSpacing': [0, 0.1]}, False),
        ({}, False),
    ],
)
def test_pixels_that_are_not_square_where_they_must_be(path, tags, refused):
    write(path, RAMP, **tags)
    np.testing.assert_array_equal(dicom.read(path), RAMP)
    if refused:
        assert_refused(path, 'pixels are not square', square=True)
    else:
        np.testing.assert_array_equal(dicom.read(path, square=True), RAMP)


def test_the_limit_on_pixels(path):
    write(path, RAMP)
    assert dicom.read(path, max_pixels=256).shape == (8, 32)
    assert_refused(path, 'limit of 255', max_pixels=255)


def test_jpeg_that_disagrees_with_its_tags(path):
    assert_refused(write_jpeg(path, picture(), Rows=41), 'inside has 40 x 56 .* 41 x 56')
    assert_refused(write_jpeg(path, np.dstack([picture()] * 3)), '3 components')
    assert_refused(write(path, RAMP, uid.JPEGBaseline8Bit, frame=b'no picture'), 'not JPEG')
    bomb = bytearray(cv2.imencode('.jpg', RAMP)[1].tobytes())
    header = bomb.index(b'\xff\xc0')
    bomb[header + 5 : header + 9] = b'\xff\xff\xff\xff'
    assert_refused(write(path, RAMP, uid.JPEGBaseline8Bit, frame=bytes(bomb)), '65535 x 65535')


def test_jpeg_without_its_end(path):
    frame = cv2.imencode('.jpg', picture())[1].tobytes()
    write(path, picture(), uid.JPEGBaseline8Bit, frame=frame[: len(frame) // 2])
    assert_refused(path, 'cut short')


@pytest.mark.filterwarnings('ignore')
def test_a_file_cut_anywhere_gives_no_image(path):
    whole = write_jpeg(path, picture()).read_bytes()
    complete = dicom.read(path)
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert_refused(path, '')
    path.write_bytes(whole)
    np.testing.assert_array_equal(dicom.read(path), complete)


def test_a_missing_decoder_names_what_to_install(path, monkeypatch):
    class Absent:
        available_plugins = ()

    monkeypatch.setattr(pixel_data, 'get_decoder', lambda _: Absent)
    for syntax, package in [
        (uid.JPEGLosslessSV1, 'pip install python-gdcm'),
        (uid.JPEG2000Lossless, 'pip install pillow'),
        (uid.JPEGLSLossless, 'pip install pyjpegls'),
        (uid.HTJ2K, 'pip install pylibjpeg pylibjpeg-openjpeg'),
    ]:
        write(path, RAMP, syntax, frame=b'\xff\xd8 anything')
        assert_refused(path, package)
        assert_refused(path, 'no decoder for ')
    np.testing.assert_array_equal(  # JPEG Baseline needs none of them
        dicom.read(write_jpeg(path, np.zeros((8, 8), np.uint8))), np.zeros((8, 8))
    )


def test_a_transfer_syntax_that_is_no_picture(path):
    assert_refused(write(path, RAMP, uid.MPEG2MPML, frame=b'film'), 'transfer syntax')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', ['jpeg', 'window', 'table', 'implicit', 'deflated', 'rle'])
def test_mutated_files_give_an_image_or_a_clear_error(path, kind):
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    if kind == 'jpeg':
        write_jpeg(path, picture(16, 16))
    elif kind == 'table':
        write(path, pixels, BitsStored=12, VOILUTSequence=lookup(5, range(0, 4000, 40), 12))
    elif kind == 'rle':
        dataset = pydicom.dcmread(write(path, pixels, BitsStored=12))
        dataset.compress(uid.RLELossless)
        dataset.save_as(path)
    else:
        syntax = {
            'window': uid.ExplicitVRLittleEndian,
            'implicit': uid.ImplicitVRLittleEndian,
            'deflated': uid.DeflatedExplicitVRLittleEndian,
        }[kind]
        write(
            path, pixels, syntax, BitsStored=12, WindowCenter=900, WindowWidth=500,
            RescaleSlope=2, RescaleIntercept=-3, PixelPaddingValue=0,
        )  # fmt: skip
    whole = path.read_bytes()
    rng = np.random.default_rng(sum(map(ord, kind)))
    read = refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for position in rng.integers(128, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        message = None
        try:
            image = dicom.read(path, max_pixels=10**6)
        except dicom.DicomError as error:
            message = str(error)
        if message is not None:
            assert message.startswith(f'{path}: ')
            assert 'secret' not in message.lower()
            refused += 1
        else:
            assert image.dtype in (np.uint8, np.uint16)
            assert image.ndim == 2
            assert image.size <= 10**6
            read += 1
    assert read
    assert refused
