"""Windows, rescale and tables against pydicom's and the standard's formulas."""

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from pneumojax.data.files import dicom
from tests.data.files.dicom_writing import RAMP, lookup, picture, write, write_jpeg

WINDOWS = [
    ('LINEAR', 1000, 400),
    ('LINEAR', 2047.5, 4096),
    ('LINEAR', 1000.25, 1),
    ('LINEAR', 1500, 2),
    ('LINEAR_EXACT', 1000, 400),
    ('LINEAR_EXACT', 900.5, 0.5),
    ('SIGMOID', 1000, 400),
    ('SIGMOID', 2000, 1),
    (None, 1800, 700),
]


@pytest.mark.filterwarnings('ignore:overflow encountered in exp')  # in pydicom's sigmoid
@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize(('function', 'center', 'width'), WINDOWS)
def test_windows_equal_pydicoms(path, function, center, width, photometric):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    tags = {'WindowCenter': center, 'WindowWidth': width, 'PhotometricInterpretation': photometric}
    if function:
        tags['VOILUTFunction'] = function
    image = dicom.read(write(path, pixels, BitsStored=12, **tags))
    reference = apply_windowing(pixels, pydicom.dcmread(path)) / 4095
    if photometric == 'MONOCHROME1':
        reference = 1 - reference
    assert image.dtype == np.uint16
    # Half a step of rounding; pydicom's float range may move it by a hair.
    assert np.abs(image - reference * 65535).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(('slope', 'intercept'), [(1, -1024), (0.5, 10), (-2, 300), (1.7, 0)])
def test_signed_pixels_with_rescale_and_window_equal_pydicoms(path, slope, intercept):
    pixels = np.linspace(-32768, 32767, 4096).astype(np.int16).reshape(64, 64)
    tags = {'RescaleSlope': slope, 'RescaleIntercept': intercept}
    image = dicom.read(write(path, pixels, WindowCenter=-200, WindowWidth=5000, **tags))
    dataset = pydicom.dcmread(path)
    values = apply_windowing(apply_modality_lut(pixels, dataset), dataset)
    ends = np.array([-32768, 32767]) * slope + intercept
    unit = (values - ends[0]) / (ends[1] - ends[0])
    assert np.abs(image - unit * 65535).max() <= 0.5 + 1e-6
    rising = np.diff(image.ravel().astype(int))
    assert (rising >= 0).all() if slope > 0 else (rising <= 0).all()


def test_rescale_without_a_window(path):
    pixels = np.arange(-600, 600, dtype=np.int16).reshape(30, 40)
    image = dicom.read(write(path, pixels, RescaleSlope=3, RescaleIntercept=77))
    np.testing.assert_array_equal(image, np.rint((pixels + 600) / 1199 * 65535))
    falling = dicom.read(write(path, pixels, RescaleSlope=-3, RescaleIntercept=77))
    np.testing.assert_array_equal(falling, 65535 - image)


def test_a_window_on_eight_bits(path):
    image = dicom.read(write(path, RAMP, WindowCenter=100, WindowWidth=50))
    reference = apply_windowing(RAMP, pydicom.dcmread(path)) / 255 * 65535
    assert image.dtype == np.uint16
    assert np.abs(image - reference).max() <= 0.5 + 1e-6


def test_tags_that_change_eight_bits_of_jpeg(path):
    stored = dicom.read(write_jpeg(path, picture()))
    value = int(stored[0, 0])
    padded = np.where(stored == value, 0, stored)
    falling = lookup(0, range(255, -1, -1), 8)
    falling[0].ModalityLUTType = 'US'
    for tags, expected in [
        ({'PixelPaddingValue': value}, padded),
        ({'PixelPaddingValue': 0, 'PixelPaddingRangeLimit': value}, stored * (stored > value)),
        ({'RescaleSlope': -1}, 255 - stored),
        ({'ModalityLUTSequence': falling}, 255 - stored),
        ({'VOILUTSequence': lookup(0, range(255, -1, -1), 8)}, 255 - stored),
        ({'WindowCenter': 128, 'WindowWidth': 256, 'VOILUTFunction': 'LINEAR'}, stored),
        ({'PhotometricInterpretation': 'MONOCHROME1'}, 255 - stored),
    ]:
        np.testing.assert_array_equal(dicom.read(write_jpeg(path, picture(), **tags)), expected)


def test_the_first_of_several_windows_counts(path):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    one = dicom.read(write(path, pixels, WindowCenter=900, WindowWidth=300))
    several = dicom.read(write(path, pixels, WindowCenter=[900, 9], WindowWidth=[300, 3]))
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize('width', [0, -5, 0.5])
def test_a_window_the_standard_forbids_is_passed_over(path, width):
    np.testing.assert_array_equal(
        dicom.read(write(path, RAMP, WindowCenter=100, WindowWidth=width)), RAMP
    )


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize('bits', [8, 10, 12, 16])
def test_a_voi_table_maps_its_output_range_to_the_whole_range(path, bits, syntax):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    highest = (1 << bits) - 1
    data = np.linspace(highest * 0.1, highest * 0.9, 1000).astype(int)
    tags = {'VOILUTSequence': lookup(500, data, bits), 'WindowCenter': 9, 'WindowWidth': 9}
    image = dicom.read(write(path, pixels, syntax, BitsStored=12, **tags))
    by_hand = data[np.clip(pixels.astype(int) - 500, 0, 999)]
    np.testing.assert_array_equal(image, np.rint(by_hand / highest * 65535))
    if bits > 8:  # pydicom's wraps around in 8-bit tables of more than 256 entries
        np.testing.assert_array_equal(apply_voi(pixels, pydicom.dcmread(path)), by_hand)


def test_eight_bit_entries_packed_two_in_a_word(path):
    table = lookup(0, 255 - np.arange(256), 8, packed=True)
    np.testing.assert_array_equal(dicom.read(write(path, RAMP, VOILUTSequence=table)), 255 - RAMP)


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_a_table_over_signed_pixels(path, syntax):
    pixels = np.arange(-200, 200, dtype=np.int16).reshape(20, 20)
    data = np.linspace(0, 1023, 300).astype(int)
    table = lookup(-150, data, 10)
    image = dicom.read(write(path, pixels, syntax, VOILUTSequence=table))
    by_hand = data[np.clip(pixels.astype(int) + 150, 0, 299)]
    np.testing.assert_array_equal(image, np.rint(by_hand / 1023 * 65535))


def test_a_modality_table(path):
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    data = (np.arange(256) ** 2).astype(int)
    tags = {'ModalityLUTSequence': lookup(0, data, 16)}
    tags['ModalityLUTSequence'][0].ModalityLUTType = 'US'
    image = dicom.read(write(path, pixels, BitsStored=12, **tags))
    np.testing.assert_array_equal(image, np.rint(pixels.astype(float) ** 2 / 255**2 * 65535))


def test_the_order_is_rescale_window_inversion(path):
    """Worked by hand: stored 0, 10, 20, 30 become 100, 80, 60, 40; window 40 to 80; inverted."""
    pixels = np.array([[0, 10, 20, 30]], np.uint16)
    tags = {'RescaleSlope': -2, 'RescaleIntercept': 100, 'WindowCenter': 60, 'WindowWidth': 40}
    tags |= {'VOILUTFunction': 'LINEAR_EXACT', 'PhotometricInterpretation': 'MONOCHROME1'}
    image = dicom.read(write(path, pixels, **tags))
    np.testing.assert_array_equal(image, [[0, 0, 32767, 65535]])
