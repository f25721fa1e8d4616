"""PNG and JPEG files: what masks mean, and what may follow a file's end."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pneumojax.data.files import inputs, picture_files

INSIDE = np.zeros((40, 56), np.uint8)
INSIDE[10:30, 8:40] = 1


def read(path):
    return picture_files.read_mask(path, max_pixels=10_000)


def written(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.png'


# Soft edges.


@pytest.mark.parametrize('white', [255, 65535])
@pytest.mark.parametrize('colour', [False, True])
def test_a_blurred_mask_keeps_its_size(path, white, colour):
    deep = INSIDE.astype(np.uint16 if white > 255 else np.uint8) * white
    blurred = cv2.GaussianBlur(deep, (9, 9), 3)
    assert np.count_nonzero(blurred) > 1.5 * INSIDE.sum()  # as all that is not black
    written(path, cv2.merge([0 * blurred, 0 * blurred, blurred]) if colour else blurred)
    mask = read(path)
    assert mask.values == 'soft'
    np.testing.assert_array_equal(mask.pixels, blurred > white / 2)
    assert abs(int(mask.pixels.sum()) - int(INSIDE.sum())) <= 20  # its corners


def test_a_mask_that_was_jpeg_once_is_the_mask(path):
    disc = cv2.circle(0 * INSIDE, (27, 19), 13, 1, -1)
    code = cv2.imencode('.jpg', disc * np.uint8(255))[1]
    noisy = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)
    assert np.count_nonzero(noisy) > 1.05 * disc.sum()
    np.testing.assert_array_equal(read(written(path, noisy)).pixels, disc)


@pytest.mark.parametrize(
    'labels', [(1, 2), (1, 2, 255), (128, 255), tuple(range(1, 31)), (32, 64, 96, 128, 160, 255)]
)
def test_every_label_is_inside(path, labels):
    mask = INSIDE.copy()
    mask[INSIDE > 0] = np.resize(labels, INSIDE.sum())
    read_back = read(written(path, mask))
    assert read_back.values == 'labels'
    np.testing.assert_array_equal(read_back.pixels, INSIDE)


@pytest.mark.parametrize('value', [1, 7, 200, 255])
def test_two_values_are_black_and_white(path, value):
    read_back = read(written(path, INSIDE * np.uint8(value)))
    assert read_back.values == 'black and white'
    np.testing.assert_array_equal(read_back.pixels, INSIDE)


# Palettes.


def with_palette(path, indices, palette, **options):
    image = Image.fromarray(indices, 'L').convert('P')
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette)
    image.save(path, **options)
    with Image.open(path) as stored:
        assert stored.mode == 'P'
        np.testing.assert_array_equal(np.asarray(stored), indices)
    return path


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_a_palette_that_is_all_black_leaves_the_indices(path, bits):
    with_palette(path, INSIDE, [0, 0, 0] * 2, bits=bits)
    np.testing.assert_array_equal(read(path).pixels, INSIDE)
    with_palette(path, 0 * INSIDE, [0, 0, 0] * 2, bits=bits)
    assert not read(path).pixels.any()


def test_indices_are_found_behind_a_text_that_looks_like_a_palette(path):
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add(b'teXt', b'Comment\0PLTE and more')
    with_palette(path, INSIDE, [0, 0, 0] * 2, pnginfo=text)
    np.testing.assert_array_equal(read(path).pixels, INSIDE)


def test_colours_decide_where_there_are_some(path):
    with_palette(path, INSIDE, [0, 0, 0, 128, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(read(path).pixels, INSIDE)
    with_palette(path, INSIDE, [255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read(path).pixels, 1 - INSIDE)


def test_indices_of_which_only_some_are_black_are_refused(path):
    indices = INSIDE.copy()
    indices[0, 0] = 2
    with_palette(path, indices, [0, 0, 0, 0, 0, 0, 255, 0, 0])
    with pytest.raises(ValueError, match='several of its values as black'):
        read(path)


# The end.


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_zeros_behind_the_end_are_padding(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 256, (40, 56), np.uint8)
    code = cv2.imencode(suffix, image)[1].tobytes()
    expected = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_GRAYSCALE)
    path = tmp_path / ('x' + suffix)
    for padding in (1, 1500, 70_000):
        path.write_bytes(code + bytes(padding))
        np.testing.assert_array_equal(inputs.read(path).image, expected)
    for damaged in (code[:-400] + bytes(4000), code + bytes(4000) + b'x', code + b'x' * 4000):
        path.write_bytes(damaged)
        with pytest.raises(inputs.Unreadable, match='cut short'):
            inputs.read(path)
