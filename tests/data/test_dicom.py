"""DICOM reading against pydicom's transformations, Pillow's decoder and the standard's formulas."""

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
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from pneumojax.data import dicom

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


def picture(height=40, width=56, seed=0):
    """A smooth grey picture, which JPEG keeps well."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path, pixels, syntax=uid.ExplicitVRLittleEndian, *, frame=None, **tags):
    """Writes a valid file; `tags` replace or, when None, remove what is there."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = '1.2.3'
    dataset.PatientName, dataset.PatientID = 'Secret^Name', 'SECRET'
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    bits = 8 * pixels.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == 'i')
    order = '>' if syntax == uid.ExplicitVRBigEndian else '<'
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = data if frame is None else encapsulate([frame])
    dataset['PixelData'].VR = 'OB' if bits == 8 else 'OW'
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_jpeg(path, pixels, syntax=uid.JPEGBaseline8Bit, **tags):
    frame = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    tags = {'BitsAllocated': 8, 'BitsStored': 8, **tags}
    return write(path, pixels, syntax, frame=frame, **tags)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'image.dcm'


def assert_refused(path, expected, **arguments):
    with pytest.raises(dicom.DicomError, match=expected) as error:
        dicom.read(path, **arguments)
    message = str(error.value)
    assert message.startswith(f'{path}: ')
    assert '\n' not in message
    assert 'secret' not in message.lower()
    assert isinstance(error.value, ValueError)


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


# More bits, windows and tables.


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


def lookup(first, data, bits, packed=False):
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'SS' if first < 0 else 'US', [len(data), first, bits])
    if packed:
        item.add_new('LUTData', 'OW', np.asarray(data, np.uint8).tobytes())
    else:
        item.add_new('LUTData', 'US', [int(value) for value in data])
    return [item]


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


def test_a_table_with_too_few_entries(path):
    table = lookup(0, range(100), 12)
    table[0].LUTDescriptor = [200, 0, 12]
    assert_refused(write(path, RAMP, VOILUTSequence=table), '100 of 200 entries')
    table[0].LUTDescriptor = [100, 0, 99]
    assert_refused(write(path, RAMP, VOILUTSequence=table), '99 bits')


def test_an_absurd_rescale(path):
    tags = {'RescaleSlope': '1e308', 'RescaleIntercept': '1e308'}
    assert_refused(write(path, RAMP, **tags), 'absurd')


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


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('SC_rgb_jpeg_dcmtk.dcm', 'colour'),
        ('examples_palette.dcm', 'colour'),
        ('SC_rgb_rle_2frame.dcm', '2 frames'),
        ('rtdose.dcm', '15 frames'),
        ('reportsi.dcm', 'no pixel data'),
        ('rtplan.dcm', 'no pixel data'),
        ('ExplVR_LitEndNoMeta.dcm', 'not a DICOM file'),
        ('MR_truncated.dcm', 'cut short: 8130 of 8192 bytes'),
        ('README.txt', 'not a DICOM file'),
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_pydicoms_files_without_a_grey_image(name, expected):
    assert_refused(get_testdata_file(name, download=False), expected)


# Bad files.


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
        ({'WindowCenter': 5, 'WindowWidth': 9, 'VOILUTFunction': 'CUBIC'}, 'none of LINEAR'),
    ],
)
def test_tags_that_make_no_image(path, tags, expected):
    assert_refused(write(path, RAMP, **tags), expected)


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

    monkeypatch.setattr(dicom, 'get_decoder', lambda _: Absent)
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


def test_paths_may_be_text(path):
    write(path, RAMP)
    np.testing.assert_array_equal(dicom.read(str(path)), dicom.read(pathlib.Path(path)))
