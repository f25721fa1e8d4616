"""TIFF, BMP, WebP and JPEG 2000: read as independent readers do, or refused with the reason."""

import io
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from openjpeg import utils as openjpeg
from PIL import Image

from pneumojax.data.files import exif, inputs, picture_files, picture_layouts
from pneumojax.data.phantoms import phantom

GREY = phantom.draw(np.random.default_rng(2), 64, True).image[:, :50].copy()
DEEP = GREY.astype(np.uint16) * 200 + 7
RGB = cv2.merge([GREY] * 3)
KIND = {'TIFF': '.tif', 'BMP': '.bmp', 'WEBP': '.webp', 'JPEG2000': '.jp2'}


@pytest.fixture
def read(tmp_path):
    """The image of a file with this content, whose name says something else."""

    def call(content, **options):
        path = tmp_path / 'image.txt'
        path.write_bytes(content)
        return inputs.read(path, **options).image

    return call


def saved(pixels, kind, mode=None, **options):
    """Written by Pillow."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(pixels, **options):
    """Written by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def as_shown(pixels):
    """8 bits, where 16 are scaled from the smallest to the largest value."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    return np.rint((pixels - low) * (255 / (high - low))).astype(np.uint8)


# --- read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('pixels', [GREY, DEEP], ids=['8', '16'])
@pytest.mark.parametrize('photometric', ['minisblack', 'miniswhite'])
@pytest.mark.parametrize(
    'options', [{}, {'compression': 'zlib'}, {'rowsperstrip': 7}], ids=['', 'zlib', 'strips']
)
@pytest.mark.parametrize('order', ['<', '>'])
def test_tiff_files_of_tifffile(read, pixels, photometric, options, order):
    code = tiff(pixels, photometric=photometric, byteorder=order, **options)
    stored = tifffile.imread(io.BytesIO(code))
    white_is_0 = photometric == 'miniswhite'
    expected = as_shown(np.iinfo(stored.dtype).max - stored if white_is_0 else stored)
    np.testing.assert_array_equal(read(code), expected)


@pytest.mark.parametrize('pixels', [GREY, DEEP, RGB], ids=['8', '16', 'rgb'])
@pytest.mark.parametrize('compression', [None, 'tiff_lzw', 'tiff_adobe_deflate', 'packbits'])
def test_tiff_files_of_pillow(read, pixels, compression):
    code = saved(pixels, 'TIFF', compression=compression)
    found = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(read(code), as_shown(found if found.ndim == 2 else GREY))


@pytest.mark.parametrize(
    ('kind', 'pixels', 'mode', 'options'),
    [
        ('BMP', GREY, None, {}), ('BMP', RGB, None, {}), ('BMP', RGB, 'RGBA', {}),
        ('BMP', GREY, 'P', {}), ('WEBP', RGB, None, {'lossless': True}),
        ('WEBP', RGB, None, {'quality': 90}), ('JPEG2000', GREY, None, {}),
        ('JPEG2000', RGB, None, {}), ('JPEG2000', DEEP, None, {}),
        ('JPEG2000', GREY, None, {'irreversible': True, 'tile_size': (16, 16)}),
    ],
)  # fmt: skip
def test_other_files_of_pillow(read, kind, pixels, mode, options):
    """Each is read as OpenCV does, and lossless ones give what was written."""
    code = saved(pixels, kind, mode, **options)
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE
    found = read(code)
    np.testing.assert_array_equal(
        found, as_shown(cv2.imdecode(np.frombuffer(code, np.uint8), flags))
    )
    if 'quality' not in options and 'irreversible' not in options:
        np.testing.assert_array_equal(found, as_shown(DEEP if pixels is DEEP else GREY))
    np.testing.assert_array_equal(read(code + bytes(300)), found)  # padding


@pytest.mark.parametrize('bits', [8, 10, 12, 16])
def test_jpeg_2000_of_other_depths(read, bits):
    pixels = (DEEP >> 16 - bits).astype(np.uint8 if bits == 8 else np.uint16)
    code = openjpeg.encode_array(
        pixels, bits_stored=bits, photometric_interpretation=2, use_mct=False, codec_format=1
    )
    np.testing.assert_array_equal(read(code), as_shown(pixels))


def test_black_at_the_end_of_the_file_is_no_padding(read):
    dark = GREY.copy()
    dark[:30] = dark[40:] = 0
    for kind in ('BMP', 'TIFF'):
        np.testing.assert_array_equal(read(saved(dark, kind)), dark)
    top_down = bytearray(saved(np.ascontiguousarray(dark[::-1]), 'BMP'))
    top_down[22:26] = (-64).to_bytes(4, 'little', signed=True)
    np.testing.assert_array_equal(read(bytes(top_down)), dark)


@pytest.mark.parametrize('orientation', range(10))
def test_they_are_turned_as_viewers_turn_them(read, orientation):
    number = orientation if 1 <= orientation <= 8 else 1
    tag = Image.Exif()
    tag[274] = orientation
    for pixels in (GREY, DEEP):
        code = tiff(pixels, extratags=[(274, 'H', 1, orientation, True)])
        np.testing.assert_array_equal(read(code), as_shown(exif.turn(pixels, number)))
    code = saved(RGB, 'WEBP', lossless=True, exif=tag)
    np.testing.assert_array_equal(read(code), exif.turn(GREY, number))


# --- refused -------------------------------------------------------------------------------------


COLOUR = cv2.merge([GREY, GREY, 255 - GREY])
ANIMATED = {'save_all': True, 'append_images': [Image.fromarray(RGB[::-1].copy())]}


@pytest.mark.parametrize(
    ('code', 'words'),
    [
        *((saved(COLOUR, kind), 'colour image') for kind in KIND),
        (saved(COLOUR, 'BMP', 'P'), 'colour image'),
        (saved(RGB, 'TIFF', **ANIMATED), 'several pages'),
        (saved(RGB, 'WEBP', **ANIMATED), 'several frames'),
    ],
)  # fmt: skip
def test_what_is_no_single_grey_image_is_skipped(read, code, words):
    with pytest.raises(inputs.Skipped, match=words):
        read(code)


def with_space(code, number):
    """A JP2 file of another enumerated colour space."""
    at = code.index(b'colr') + 7
    return code[:at] + number.to_bytes(4) + code[at + 4 :]


@pytest.mark.parametrize(
    ('code', 'words'),
    [
        (saved(RGB, 'TIFF', 'CMYK'), 'colours'), (saved(GREY, 'TIFF', 'P'), 'colours'),
        (saved(RGB, 'TIFF', 'YCbCr'), 'colours'), (saved(RGB, 'TIFF', 'LAB'), 'colours'),
        (saved(GREY, 'TIFF', 'F'), '32 bits'), (saved(GREY, 'TIFF', '1'), '1 bits'),
        (saved(GREY, 'TIFF', 'LA'), '2 channels'), (saved(RGB, 'TIFF', 'RGBA'), '4 channels'),
        (tiff(cv2.merge([DEEP] * 3), photometric='rgb'), '16/16/16 bits'),
        (tiff(DEEP.astype(np.int16)), 'signed'), (tiff(GREY.astype(np.float16)), 'decimal'),
        (tiff(GREY, tile=(16, 16)), 'tiles'), (tiff(GREY, bigtiff=True), 'BigTIFF'),
        (tiff(np.stack([GREY] * 3), photometric='rgb', planarconfig='separate'), 'planes'),
        (saved(GREY, 'TIFF', compression='jpeg'), 'LZW, Deflate, PackBits'),
        (saved(GREY, 'BMP', '1'), 'BMP'), (saved(GREY, 'JPEG2000', 'LA'), 'palette or other'),
        (with_space(saved(RGB, 'JPEG2000'), 18), 'palette or other'),
        (saved(GREY, 'JPEG2000').replace(b'ftyp', b'fty\0'), 'does not hold one image'),
        (saved(GREY, 'JPEG2000').replace(b'ihdr\0\0\0@', b'ihdr\0\0\0\2'), 'two sizes'),
    ],
)  # fmt: skip
def test_kinds_of_pixels_that_are_not_read_are_said(read, code, words):
    with pytest.raises(inputs.Unreadable, match=words):
        read(code)


@pytest.mark.parametrize('kind', KIND)
@pytest.mark.parametrize('lossy', [False, True])
def test_a_file_that_is_cut_short_is_never_filled_with_grey(read, kind, lossy):
    options = {
        'WEBP': {'lossless': not lossy},
        'TIFF': {'compression': 'tiff_lzw'} if lossy else {},
    }
    code = saved(GREY, kind, **options.get(kind, {}))
    read(code)
    for end in range(30, len(code) - 1, len(code) // 12):
        with pytest.raises((inputs.Unreadable, inputs.Skipped)):
            read(code[:end])


@pytest.mark.parametrize('pixels', [GREY, DEEP], ids=['8', '16'])
def test_a_strip_that_unpacks_to_too_little_is_refused(read, pixels):
    """OpenCV gives a picture, black below."""
    code = bytearray(tiff(pixels, compression='zlib', rowsperstrip=64))
    page = tifffile.TiffFile(io.BytesIO(bytes(code))).pages[0]
    at, count = page.dataoffsets[0], page.databytecounts[0]
    half = zlib.compress(pixels[:30].tobytes(), 9)
    assert len(half) <= count
    code[at : at + count] = half.ljust(count, b'\0')
    with pytest.raises(inputs.Unreadable, match='damaged'):
        read(bytes(code))


def test_sizes_are_checked_before_anything_is_decoded(read, monkeypatch):
    monkeypatch.setattr(picture_files.sandbox, 'decode', None)
    for kind in KIND:
        with pytest.raises(inputs.Unreadable, match='64 x 50 pixels, more than the limit of 3199'):
            read(saved(GREY, kind), max_pixels=3199)


def test_other_files_are_not_taken_for_pictures():
    for content in (b'BM' + b'W drives away. ' * 9, b'RIFF' + bytes(4) + b'WAVE' + bytes(99)):
        assert picture_layouts.kind(content) is None


def test_a_tag_of_gigabytes_takes_no_memory(read):
    code = bytearray(tiff(GREY))
    at = next(i for i in range(8, 200) if code[i : i + 4] == b'\x11\1\4\0')  # where strips are
    code[at + 4 : at + 8] = (1 << 30).to_bytes(4, 'little')
    with pytest.raises(inputs.Unreadable, match='tag 273 is damaged'):
        read(bytes(code))
