"""DICOM reading against Pillow's decoder, pydicom's own files and pixels written here."""

import io
import pathlib

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut

from pneumojax.data.files import dicom
from tests.data.files.dicom_writing import RAMP, picture, write, write_jpeg

# Eight bits.


@pytest.mark.parametrize(
    'syntax',
    [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ],
)
def test_eight_bits_without_a_window_stay_as_they_are(path, syntax):
    image = dicom.read(write(path, RAMP, syntax))
    np.testing.assert_array_equal(image, RAMP)
    assert image.dtype == np.uint8
    assert image.flags.writeable


def test_dark_eight_bit_images_are_not_stretched(path):
    np.testing.assert_array_equal(dicom.read(write(path, RAMP // 4)), RAMP // 4)


@pytest.mark.parametrize('syntax', [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_jpeg_equals_pillows_decoder_bit_for_bit(path, syntax):
    pixels = picture(83, 101)
    frame = cv2.imencode('.jpg', pixels)[1].tobytes()
    image = dicom.read(write(path, pixels, syntax, frame=frame))
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(frame))))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - pixels).max() < 20


def test_jpeg_in_several_fragments(path):
    frame = cv2.imencode('.jpg', picture())[1].tobytes()
    whole = dicom.read(write(path, picture(), uid.JPEGBaseline8Bit, frame=frame))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=3, has_bot=False)
    dataset.save_as(path)
    np.testing.assert_array_equal(dicom.read(path), whole)


def test_an_exif_rotation_inside_the_jpeg_is_ignored(path):
    buffer, tags = io.BytesIO(), Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(picture()).save(buffer, 'JPEG', exif=tags)
    image = dicom.read(write(path, picture(), uid.JPEGBaseline8Bit, frame=buffer.getvalue()))
    assert image.shape == picture().shape


def test_monochrome1_is_inverted(path):
    tags = {'PhotometricInterpretation': 'MONOCHROME1'}
    np.testing.assert_array_equal(dicom.read(write(path, RAMP, **tags)), 255 - RAMP)
    plain = dicom.read(write_jpeg(path, picture()))
    inverted = dicom.read(write_jpeg(path, picture(), **tags))
    np.testing.assert_array_equal(inverted, 255 - plain)
    assert inverted.dtype == np.uint8


def test_a_window_or_rescale_that_says_nothing_changes_nothing(path):
    identity = {'WindowCenter': 128, 'WindowWidth': 256, 'RescaleSlope': 1, 'RescaleIntercept': 0}
    image = dicom.read(write(path, RAMP, **identity))
    np.testing.assert_array_equal(image, RAMP)
    assert image.dtype == np.uint8
    image = dicom.read(write(path, RAMP, RescaleSlope=2, RescaleIntercept=-100))
    np.testing.assert_array_equal(image, RAMP)


def test_fewer_than_eight_bits_use_the_whole_range(path):
    nibbles = (RAMP // 16).astype(np.uint8)
    np.testing.assert_array_equal(dicom.read(write(path, nibbles, BitsStored=4)), nibbles * 17)
    image = dicom.read(write(path, RAMP // 8, BitsStored=5))
    np.testing.assert_array_equal(image, np.rint((RAMP // 8) * (65535 / 31)))


def test_signed_bytes(path):
    image = dicom.read(write(path, (RAMP.astype(int) - 128).astype(np.int8)))
    np.testing.assert_array_equal(image, RAMP)


# More bits.


def test_twelve_bits_span_from_the_smallest_to_the_largest_pixel(path):
    pixels = np.array([[300, 301, 1000], [2000, 3500, 4000]], np.uint16)
    image = dicom.read(write(path, pixels, BitsStored=12))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, np.rint((pixels - 300.0) / 3700 * 65535))
    inverted = dicom.read(
        write(path, pixels, BitsStored=12, PhotometricInterpretation='MONOCHROME1')
    )
    np.testing.assert_array_equal(inverted, 65535 - image)


def test_a_flat_image_is_black(path):
    image = dicom.read(write(path, np.full((4, 5), 700, np.uint16)))
    np.testing.assert_array_equal(image, np.zeros((4, 5), np.uint16))


def test_bits_above_those_stored_are_no_part_of_the_pixel(path):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    overlay = pixels | (np.arange(4096).reshape(64, 64) % 3 == 0).astype(np.uint16) << 13
    plain = dicom.read(write(path, pixels, BitsStored=12))
    np.testing.assert_array_equal(dicom.read(write(path, overlay, BitsStored=12)), plain)
    signed = ((pixels.astype(int) - 2048) & 0xFFF).astype(np.int16)  # sign bit 11 not extended
    np.testing.assert_array_equal(dicom.read(write(path, signed, BitsStored=12)), plain)


def test_thirty_two_bits(path):
    pixels = np.array([[5, 10**6], [4 * 10**9, 2 * 10**9]], np.uint32)
    image = dicom.read(write(path, pixels))
    np.testing.assert_array_equal(image, np.rint((pixels - 5.0) / (4e9 - 5) * 65535))


# Padding.


@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_padding_takes_no_part_in_the_range_and_is_black(path, photometric, syntax):
    pixels = np.array([[-2000, -2000, 100], [200, 300, 1100]], np.int16)
    tags = {'PhotometricInterpretation': photometric, 'PixelPaddingValue': -2000}
    image = dicom.read(write(path, pixels, syntax, **tags))
    expected = np.rint((pixels - 100.0) / 1000 * 65535)
    if photometric == 'MONOCHROME1':
        expected = 65535 - expected
    expected[0, :2] = 0
    np.testing.assert_array_equal(image, expected)


def test_a_range_of_padding(path):
    pixels = np.array([[0, 5, 9], [10, 20, 30]], np.uint16)
    image = dicom.read(write(path, pixels, PixelPaddingValue=9, PixelPaddingRangeLimit=0))
    np.testing.assert_array_equal(image, [[0, 0, 0], [0, 32768, 65535]])


def test_padding_alone_is_black(path):
    image = dicom.read(write(path, np.full((3, 4), 9, np.uint16), PixelPaddingValue=9))
    np.testing.assert_array_equal(image, np.zeros((3, 4)))


# to_uint8.


def test_to_uint8_is_the_nearest_integer():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(dicom.to_uint8(every), np.rint(every.astype(np.float64) / 257))
    assert dicom.to_uint8(every).dtype == np.uint8
    np.testing.assert_array_equal(dicom.to_uint8(RAMP.astype(np.uint16) * 257), RAMP)
    assert dicom.to_uint8(RAMP) is RAMP
    with pytest.raises(ValueError, match='float64'):
        dicom.to_uint8(RAMP / 255)


# Files that pydicom ships.


@pytest.mark.parametrize(
    'name',
    [
        'CT_small.dcm',
        'MR_small.dcm',
        'MR_small_RLE.dcm',
        'MR_small_bigendian.dcm',
        'MR_small_expb.dcm',
        'MR_small_implicit.dcm',
        'MR_small_jp2klossless.dcm',
        'MR_small_padded.dcm',
        'image_dfl.dcm',
        'examples_overlay.dcm',
    ],
)
@pytest.mark.filterwarnings('ignore:The pixel data is 8320 bytes')
def test_pydicoms_own_files(name):
    file = get_testdata_file(name, download=False)
    dataset = pydicom.dcmread(file)
    image = dicom.read(file).astype(float)
    values = apply_modality_lut(dataset.pixel_array, dataset).astype(float)
    if 'WindowWidth' in dataset:
        center, width = (
            float(np.atleast_1d(dataset[keyword].value)[0])
            for keyword in ('WindowCenter', 'WindowWidth')
        )
        unit = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    elif dataset.BitsStored <= 8:
        unit = values / 255
    else:
        unit = (values - values.min()) / np.ptp(values)
    highest = 255 if dicom.read(file).dtype == np.uint8 else 65535
    assert np.abs(image - unit * highest).max() <= 0.5 + 1e-6


def test_paths_may_be_text(path):
    write(path, RAMP)
    np.testing.assert_array_equal(dicom.read(str(path)), dicom.read(pathlib.Path(path)))
