"""The run-length codec against a pixel-by-pixel definition of its own."""

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
from hypothesis import strategies as st

from pneumojax.data import rle

masks = hypothesis.extra.numpy.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0, 1, 1, 255]),
)


def naive_decode(text, shape):
    """The definition, one pixel at a time, in plain Python."""
    height, width = shape
    image = [[0] * width for _ in range(height)]
    position, numbers = 0, [int(number) for number in text.split()]
    if numbers == [-1]:
        numbers = []
    for gap, length in zip(numbers[0::2], numbers[1::2], strict=True):
        position += gap
        for _ in range(length):
            column, row = divmod(position, height)
            image[row][column] = 1
            position += 1
    return np.array(image, np.uint8)


def naive_encode(mask):
    """The definition, one pixel at a time, in plain Python."""
    height, width = mask.shape
    numbers, gap, length = [], 0, 0
    for column in range(width):
        for row in range(height):
            if mask[row, column]:
                length += 1
            elif length:
                numbers += [gap, length]
                gap, length = 1, 0
            else:
                gap += 1
    if length:
        numbers += [gap, length]
    return ' '.join(map(str, numbers)) or '-1'


@st.composite
def texts(draw):
    """Any legal text, adjoining runs included, with the shape of an image that holds it."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    left, numbers = shape[0] * shape[1], []
    while left and draw(st.booleans()):
        gap = draw(st.integers(0, left - 1))
        length = draw(st.integers(1, left - gap))
        numbers += [gap, length]
        left -= gap + length
    return ' '.join(map(str, numbers)) or '-1', shape


@hypothesis.given(masks)
def test_encode_equals_the_definition(mask):
    assert rle.encode(mask) == naive_encode(mask)


@hypothesis.given(texts())
def test_decode_equals_the_definition(text_and_shape):
    text, shape = text_and_shape
    mask = rle.decode(text, shape)
    np.testing.assert_array_equal(mask, naive_decode(text, shape))
    assert mask.dtype == np.uint8
    assert mask.flags.c_contiguous


@hypothesis.given(masks)
def test_a_mask_survives_the_round_trip(mask):
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), mask.shape), mask > 0)


@hypothesis.given(texts())
def test_a_text_without_adjoining_runs_survives_the_round_trip(text_and_shape):
    text, shape = text_and_shape
    hypothesis.assume('0' not in text.split()[2::2])
    assert rle.encode(rle.decode(text, shape)) == text


@hypothesis.given(st.lists(masks, max_size=4), st.integers(1, 9), st.integers(1, 9))
def test_decode_all_is_the_union(drawn, height, width):
    drawn = [np.resize(mask, (height, width)) for mask in drawn]
    union = rle.decode_all(map(rle.encode, drawn), (height, width))
    expected = np.zeros((height, width), bool)
    for mask in drawn:
        expected |= mask > 0
    np.testing.assert_array_equal(union, expected)


@pytest.mark.parametrize(
    ('text', 'rows'),
    [
        ('-1', ['...', '...']),
        (' -1', ['...', '...']),
        ('-1 \r\n', ['...', '...']),
        ('0 1', ['#..', '...']),
        ('5 1', ['...', '..#']),
        ('0 6', ['###', '###']),
        ('1 2', ['.#.', '#..']),  # down the first column, then on to the second
        ('0 1 1 1', ['##.', '...']),
        ('1 1 0 1', ['.#.', '#..']),  # adjoining runs
        (' 0 1\t4  1 ', ['#..', '..#']),
    ],
)
def test_hand_written(text, rows):
    expected = np.array([[pixel == '#' for pixel in row] for row in rows])
    np.testing.assert_array_equal(rle.decode(text, (2, 3)), expected)


def test_encode_takes_any_type_and_layout():
    mask = np.zeros((5, 4), bool)
    mask[1:4, 2] = True
    for other in (mask, mask * 255, mask * 0.25, mask * -1, np.asfortranarray(mask), mask[::1]):
        assert rle.encode(other) == '11 3'
    assert rle.encode(mask.T[::-1]) == rle.encode(np.ascontiguousarray(mask.T[::-1]))


def test_corners_of_a_full_size_image():
    mask = np.zeros((1024, 1024), np.uint8)
    mask[0, 0] = mask[-1, -1] = 1
    assert rle.encode(mask) == f'0 1 {1024 * 1024 - 2} 1'
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'blank'),
        ('  \n', 'blank'),
        ('1', 'pairs'),
        ('1 2 3', 'pairs'),
        ('1 0', 'length 0'),
        ('0 1 1 0', 'run 2 .* length 0'),
        ('1 -1', "'-1'"),
        ('-1 1', "'-1'"),
        ('-1 -1', "'-1'"),
        ('3 2 -2 1', "'-2'"),
        ('-2', "'-2'"),
        ('1.0 2', "'1.0'"),
        ('1e1 2', "'1e1'"),
        ('0x1 2', "'0x1'"),
        ('1_0 2', "'1_0'"),
        ('+1 2', "'\\+1'"),
        ('1, 2', "'1,'"),
        ('nan 1', "'nan'"),
        ('1\x002 3', 'whole number'),
        ('١ ٢', 'whole number'),  # digits to str.isdigit, yet not ASCII
        ('² 1', 'whole number'),
        ('0 7', 'pixel 7, beyond the 6 pixels'),
        ('6 1', 'beyond'),
        ('0 3 0 4', 'beyond'),
        ('0 9223372036854775807', 'larger than any'),
        ('0 18446744073709551617', 'larger than any'),
        ('999999999999999999 ' * 19 + '1', 'pixel 18999999999999999982, beyond'),
        ('9' * 5000 + ' 1', 'larger than any'),
    ],
)
def test_malformed_text_says_what_is_wrong_and_the_shape(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        rle.decode(text, (2, 3))
    message = str(error.value)
    assert '2 x 3' in message
    assert '\n' not in message
    assert len(message) < 200


@hypothesis.given(st.text(alphabet='0123456789 -+.eE_\n', max_size=30))
def test_any_text_is_a_mask_or_a_value_error(text):
    try:
        mask = rle.decode(text, (3, 5))
    except ValueError:
        return
    np.testing.assert_array_equal(mask, naive_decode(text, (3, 5)))


@pytest.mark.parametrize('value', [None, 1.0, float('nan'), b'-1'])
def test_a_value_that_is_no_text_is_refused(value):
    with pytest.raises(ValueError, match='string'):
        rle.decode(value, (2, 3))


@pytest.mark.parametrize('shape', [(0, 3), (2, -1), (2,), (2, 3, 1)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(ValueError, match='height, width'):
        rle.decode('-1', shape)
    with pytest.raises(ValueError, match='height, width'):
        rle.decode_all([], shape)


def test_encode_refuses_other_than_two_axes():
    with pytest.raises(ValueError, match=r'\(2, 3, 1\)'):
        rle.encode(np.zeros((2, 3, 1)))
