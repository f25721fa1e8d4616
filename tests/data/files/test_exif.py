"""The EXIF orientation of pictures, compared with Pillow's."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pneumojax.data.files import exif, inputs, picture_files

ORIENTATIONS = range(1, 9)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20), np.uint8)
NAMES = {'PNG': 'x.png', 'JPEG': 'x.jpg'}


def metadata(orientation, order='<'):
    found = Image.Exif()
    found.endian = order
    found[0x010F], found[0x0112] = 'a maker', orientation
    return found.tobytes()


def shown(path):
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('format', NAMES)
@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_an_image_is_read_as_viewers_show_it(tmp_path, format, orientation, order):
    path = tmp_path / NAMES[format]
    Image.fromarray(PIXELS).save(path, format, exif=metadata(orientation, order))
    radiograph = inputs.read(path)
    np.testing.assert_array_equal(radiograph.image, shown(path))
    assert any('EXIF' in note for note in radiograph.notes) == (orientation != 1)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'I;16'])
@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_a_mask_is_turned_as_an_image_is(tmp_path, mode, orientation):
    path = tmp_path / 'x.png'
    inside = PIXELS > 99
    image = Image.fromarray((inside * 255).astype(np.uint16 if mode == 'I;16' else np.uint8))
    image = image if mode == 'I;16' else image.convert(mode)
    image.save(path, exif=metadata(orientation))
    mask = picture_files.read_mask(path, max_pixels=1000)
    Image.fromarray(inside).save(path, exif=metadata(orientation))
    np.testing.assert_array_equal(mask.pixels, shown(path))
    assert (mask.orientation, mask.values) == (orientation, 'black and white')


@pytest.mark.parametrize('orientation', [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, orientation):
    path = tmp_path / 'x.png'
    Image.fromarray(PIXELS).save(path, exif=metadata(orientation))
    np.testing.assert_array_equal(inputs.read(path).image, PIXELS)


def test_a_long_number_and_metadata_behind_the_pixels(tmp_path):
    tiff = b'MM\0*\0\0\0\x08\0\x01' + b'\x01\x12\0\x04\0\0\0\x01\0\0\0\x06' + bytes(4)
    Image.fromarray(PIXELS).save(tmp_path / 'x.png')
    code = (tmp_path / 'x.png').read_bytes()
    chunk = len(tiff).to_bytes(4) + b'eXIf' + tiff + zlib.crc32(b'eXIf' + tiff).to_bytes(4)
    (tmp_path / 'x.png').write_bytes(code[:-12] + chunk + code[-12:])
    np.testing.assert_array_equal(inputs.read(tmp_path / 'x.png').image, np.rot90(PIXELS, -1))


@given(
    st.sampled_from(
        [b'', picture_files.PNG, b'\xff\xd8\xff\xe1', b'\xff\xd8\xff\xe1\0\x40Exif\0\0']
    ),
    st.sampled_from([b'', b'II*\0\x08\0\0\0', b'MM\0*', b'\0\0\0\x20eXIf']),
    st.binary(max_size=80),
)
def test_any_bytes_have_an_orientation(start, more, rest):
    assert exif.orientation(io.BytesIO(start + more + rest)) in ORIENTATIONS


def test_an_orientation_whose_value_is_elsewhere_is_none():
    """As Pillow has it: the four bytes are then an offset."""
    buffer, tags = io.BytesIO(), Image.Exif()
    tags[0x0112] = 6
    Image.new('L', (8, 4)).save(buffer, 'JPEG', exif=tags)
    good = buffer.getvalue()
    assert exif.orientation(io.BytesIO(good)) == 6
    for count in (0, 3, 0x400001):
        made = good.replace(b'\x01\x12\0\x03\0\0\0\x01', b'\x01\x12\0\x03' + count.to_bytes(4))
        assert made != good
        assert exif.orientation(io.BytesIO(made)) == 1
        assert ImageOps.exif_transpose(Image.open(io.BytesIO(made))).size == (8, 4)
