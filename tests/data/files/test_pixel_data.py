"""Where the bits of a pixel are: HighBit, and streams whose precision is not BitsStored."""

import io

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from pneumojax.data.files import dicom, inputs
from tests.data.files.test_inputs import PICTURE, make

TWELVE = np.round(PICTURE.astype(float) / 255 * 4095).astype(np.uint16)


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'image.dcm'


def compressed(path, stream, syntax, **tags):
    """A file of 16-bit cells with the stream as its only frame."""
    make(path, np.zeros(PICTURE.shape, np.uint16), **tags)
    whole = pydicom.dcmread(path)
    whole.file_meta.TransferSyntaxUID = syntax
    whole.PixelData = encapsulate([stream])
    whole['PixelData'].VR = 'OB'
    whole['PixelData'].is_undefined_length = True
    whole.save_as(path)
    return path


def jpeg2000(pixels, bits, ratio=None):
    openjpeg = pytest.importorskip('openjpeg')
    lossy = {'compression_ratios': [ratio]} if ratio else {}
    return bytes(openjpeg.encode(pixels, bits_stored=bits, photometric_interpretation=2, **lossy))


def jpeg_ls(pixels):
    """Its precision is that of the largest value, as pyjpegls writes it for whole cells."""
    return bytes(pytest.importorskip('jpeg_ls').encode_array(pixels))


# HighBit. The reference is the same picture with its bits at the bottom of each cell.


@pytest.mark.parametrize(
    'syntax', [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless]
)
@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('high', [11, 13, 15])
def test_the_stored_bits_end_at_the_high_bit(file, high, signed, syntax):
    values = TWELVE.astype(np.int64) - 2048 * signed
    kind = np.int16 if signed else np.uint16
    tags = {'BitsStored': 12, 'WindowCenter': 2048 - 2048 * signed, 'WindowWidth': 3000}
    expected = dicom.read(make(file, values.astype(kind), HighBit=11, **tags))
    noise = np.random.default_rng(0).integers(0, 1 << 16, TWELVE.shape)
    shift = high - 11
    cells = (values & 0xFFF) << shift | noise & ~(0xFFF << shift) & 0xFFFF
    make(file, cells.astype(np.uint16).view(kind), HighBit=high, **tags)
    if syntax != uid.ExplicitVRLittleEndian:
        whole = pydicom.dcmread(file)
        if syntax == uid.RLELossless:
            whole.compress(syntax)
            whole.save_as(file)
        else:
            make(file, cells.astype(np.uint16).view(kind), syntax, HighBit=high, **tags)
    np.testing.assert_array_equal(dicom.read(file), expected)
    assert not inputs.read(file).notes


def test_the_upper_half_of_a_byte(file):
    nibbles = PICTURE // 16
    make(file, (nibbles << 4 | 5).astype(np.uint8), BitsStored=4, HighBit=7)
    np.testing.assert_array_equal(dicom.read(file), nibbles * 17)


# The precision of the stream.


@pytest.mark.parametrize('tagged', [8, 10, 12])
def test_a_stream_of_more_bits_than_tagged(file, tagged):
    pixels = np.round(PICTURE.astype(float) / 255 * 16383).astype(np.uint16)
    pixels[0, :2] = 0, 16383
    expected = np.rint(pixels / 16383 * 65535)
    compressed(file, jpeg2000(pixels, 14), uid.JPEG2000Lossless, BitsStored=tagged)
    np.testing.assert_array_equal(dicom.read(file), expected)
    assert f'14 bits, which are shown, not {tagged}' in inputs.read(file).notes[0]


@pytest.mark.parametrize('syntax', [uid.JPEG2000Lossless, uid.JPEGLSLossless])
@pytest.mark.parametrize('tagged', [12, 16])
def test_whole_cells_of_fewer_bits_than_the_stream(file, syntax, tagged):
    """As dcmtk writes them: 16 bits in the stream, of which 12 are used."""
    stream = jpeg2000(TWELVE, 16) if syntax == uid.JPEG2000Lossless else jpeg_ls(TWELVE | 0)
    compressed(file, stream, syntax, BitsStored=tagged, WindowCenter=2048, WindowWidth=3000)
    image = dicom.read(file)
    expected = dicom.read(make(file, TWELVE, BitsStored=12, WindowCenter=2048, WindowWidth=3000))
    np.testing.assert_array_equal(image, expected)


def test_an_eight_bit_stream_tagged_as_twelve_is_unchanged(file):
    code = cv2.imencode('.jpg', PICTURE // 2)[1].tobytes()
    compressed(file, code, uid.JPEGBaseline8Bit, BitsStored=12)
    expected = np.asarray(Image.open(io.BytesIO(code)))
    np.testing.assert_array_equal(dicom.read(file), expected)
    assert '8 bits' in inputs.read(file).notes[0]


def test_signed_values_in_fewer_bits_than_tagged(file):
    """10 bits in two's complement, as JPEG-LS and JPEG have no sign of their own."""
    values = np.round(PICTURE.astype(float) / 255 * 1023).astype(np.int64) - 512
    values[0, :2] = -512, 511
    code = jpeg2000((values & 1023).astype(np.uint16), 10)
    compressed(file, code, uid.JPEG2000Lossless, BitsStored=12, PixelRepresentation=1)
    np.testing.assert_array_equal(dicom.read(file), np.rint((values + 512) / 1023 * 65535))


def test_lossy_overshoot_saturates(file):
    """Hard white edges in a 10-bit picture: compression goes beyond, which must not wrap around."""
    pixels = np.round(PICTURE.astype(float) / 255 * 1000).astype(np.uint16)
    pixels[10:60, 20:24], pixels[40:60, 5:15], pixels[0, 0] = 1023, 1023, 0
    code = jpeg2000(pixels, 12, ratio=15)
    import openjpeg

    decoded = openjpeg.decode(code)
    assert 1023 < decoded.max() < 1200
    compressed(file, code, uid.JPEG2000, BitsStored=10)
    clipped = decoded.clip(0, 1023).astype(float)
    expected = (clipped - clipped.min()) / np.ptp(clipped) * 65535
    np.testing.assert_array_equal(dicom.read(file), np.rint(expected))
    assert 'clipped' in inputs.read(file).notes[0]


@pytest.mark.parametrize('tagged', [10, 12, 16])
def test_twelve_bit_jpeg_has_twelve_bits_whatever_is_tagged(file, tagged):
    pytest.importorskip('gdcm')
    from pydicom.data import get_testdata_file
    from pydicom.encaps import generate_frames

    whole = pydicom.dcmread(get_testdata_file('JPEG-lossy.dcm', download=False))
    tags = {'WindowCenter': 1000, 'WindowWidth': 2000}
    frame = next(generate_frames(whole.PixelData, number_of_frames=1))
    images = []
    for bits in (12, tagged):
        compressed(
            file, frame, uid.JPEGExtended12Bit, BitsStored=bits, Rows=whole.Rows,
            Columns=whole.Columns, **tags,
        )  # fmt: skip
        images.append(dicom.read(file))
    np.testing.assert_array_equal(images[1], images[0])
