"""Optional tags: against the standard's text, and ignored with a note if they make no sense."""

import math

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from pneumojax.data.files import dicom, inputs
from tests.data.files.dicom_writing import RAMP, lookup
from tests.data.files.test_inputs import make

TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SYNTAXES = [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian]


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'image.dcm'


def shown(path):
    """The image as in prediction, and the notes on it."""
    radiograph = inputs.read(path)
    return radiograph.image, '; '.join(radiograph.notes)


# The standard's text, value by value, in exact numbers where it has them.


def display_value(cell, tags, cells):
    """One cell of `cells` as a share of the display's range; None for padding."""
    bits, shift = tags['BitsStored'], tags['HighBit'] + 1 - tags['BitsStored']

    def stored(c):  # PS3.5 8.1.1
        value = (c >> shift) & ((1 << bits) - 1)
        negative = tags['PixelRepresentation'] and value >> (bits - 1)
        return value - (1 << bits) if negative else value

    def modality(value):  # PS3.3 C.11.1.1.2
        return value * tags.get('RescaleSlope', 1) + tags.get('RescaleIntercept', 0)

    def is_padding(value):  # PS3.3 C.7.5.1.1.2
        if 'PixelPaddingValue' not in tags:
            return False
        word = tags['PixelPaddingValue'] & 0xFFFF
        negative = tags['PixelRepresentation'] and word >> 15
        return value == (word - 65536 if negative else word)

    if is_padding(stored(cell)):
        return None
    x = modality(stored(cell))
    if 'first' in tags:  # PS3.3 C.11.2.1.1
        index = min(max(round(x) - tags['first'], 0), len(tags['entries']) - 1)
        unit = tags['entries'][index] / 1023
    elif 'WindowCenter' in tags:  # PS3.3 C.11.2.1.2
        center, width = tags['WindowCenter'], tags['WindowWidth']
        if tags['VOILUTFunction'] == 'SIGMOID':
            unit = 1 / (1 + math.exp(min(-4 * (x - center) / width, 700)))
        else:
            if tags['VOILUTFunction'] == 'LINEAR':
                center, width = center - 0.5, width - 1
            unit = (x - center) / width + 0.5 if width else float(x > center)
            unit = min(max(unit, 0), 1)
    else:  # not in the standard: what `display` promises
        used = [stored(c) for c in cells if not is_padding(stored(c))]
        lowest = -(1 << bits - 1) if tags['PixelRepresentation'] else 0
        ends = (lowest, lowest + (1 << bits) - 1) if bits <= 8 else (min(used), max(used))
        low, high = sorted(modality(end) for end in ends)
        unit = (x - low) / (high - low) if high > low else 0
    return 1 - unit if tags['PhotometricInterpretation'] == 'MONOCHROME1' else unit


@st.composite
def headers(draw):
    bits = draw(st.integers(2, 16))
    allocated = 8 if bits <= 8 and draw(st.booleans()) else 16
    signed = draw(st.integers(0, 1))
    tags = {
        'BitsAllocated': allocated, 'BitsStored': bits, 'PixelRepresentation': signed,
        'HighBit': draw(st.integers(bits - 1, allocated - 1)),
        'PhotometricInterpretation': draw(st.sampled_from(['MONOCHROME1', 'MONOCHROME2'])),
    }  # fmt: skip
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if draw(st.booleans()):
        tags['RescaleSlope'] = draw(st.sampled_from([1, 2, -1, -3]))
        tags['RescaleIntercept'] = draw(st.sampled_from([0, -1024, 100, 40000]))
    if draw(st.booleans()):
        value = draw(st.integers(lowest, highest))
        tags['PixelPaddingValue'] = value
        tags['padding_vr'] = draw(st.sampled_from(['US', 'SS']))
    ends = [
        end * tags.get('RescaleSlope', 1) + tags.get('RescaleIntercept', 0)
        for end in (lowest, highest)
    ]
    voi = draw(st.sampled_from(['', 'window', 'table']))
    if voi == 'window':
        tags['VOILUTFunction'] = draw(st.sampled_from(['LINEAR', 'LINEAR_EXACT', 'SIGMOID']))
        tags['WindowCenter'] = draw(st.integers(int(min(ends)), int(max(ends))))
        tags['WindowWidth'] = draw(st.integers(1, 5000))
    elif voi == 'table':
        # A word is a number from -32768 or from 0 on, depending on whether inputs may be negative.
        floor = -(1 << 15) if min(ends) < 0 else 0
        first = draw(st.integers(max(int(min(ends)), floor), int(max(ends))))
        tags['first'] = min(first, floor + 65535)
        tags['descriptor_vr'] = draw(st.sampled_from(['US', 'SS']))
        tags['entries'] = draw(st.lists(st.integers(0, 1023), min_size=1, max_size=20))
    cells = draw(st.lists(st.integers(0, (1 << allocated) - 1), min_size=12, max_size=12))
    return tags, cells, draw(st.sampled_from(SYNTAXES))


def in_word(value, vr):
    """The number that reads as `value` in the other signedness too: the same 16 bits."""
    word = value & 0xFFFF
    return word - 65536 if vr == 'SS' and word >> 15 else word


@settings(max_examples=150, deadline=None)
@given(headers())
def test_random_headers_equal_the_standards_text(tmp_path_factory, case):
    tags, cells, syntax = case
    path = tmp_path_factory.getbasetemp() / 'random.dcm'
    kind = np.dtype(f'{"i" if tags["PixelRepresentation"] else "u"}{tags["BitsAllocated"] // 8}')
    pixels = np.array(cells, f'u{kind.itemsize}').view(kind).reshape(3, 4)
    plain = {key: value for key, value in tags.items() if key[0].isupper()}
    plain.pop('PixelPaddingValue', None)
    make(path, pixels, syntax, **plain)
    whole = pydicom.dcmread(path)
    if 'PixelPaddingValue' in tags:
        vr = tags['padding_vr']
        whole.add_new('PixelPaddingValue', vr, in_word(tags['PixelPaddingValue'], vr))
    if 'first' in tags:
        vr, item = tags['descriptor_vr'], pydicom.Dataset()
        descriptor = [len(tags['entries']), in_word(tags['first'], vr), 10]
        item.add_new('LUTDescriptor', vr, descriptor)
        item.add_new('LUTData', 'US', tags['entries'])
        whole.VOILUTSequence = [item]
    whole.save_as(path)
    image = dicom.read(path)
    expected = [display_value(cell, tags, cells) for cell in cells]
    highest = np.iinfo(image.dtype).max
    for got, share in zip(image.ravel().tolist(), expected, strict=True):
        assert abs(got - (0 if share is None else share * highest)) <= 0.5 + 1e-6


# The first input of a table.


@pytest.mark.parametrize('syntax', SYNTAXES)
@pytest.mark.parametrize('vr', ['US', 'SS'])
def test_a_table_whose_first_input_is_negative_after_the_rescale(file, syntax, vr):
    gamma = np.round(1023 * (np.arange(4096) / 4095) ** 2).astype(int)
    if syntax == uid.ImplicitVRLittleEndian:
        vr = 'US'  # what a writer makes of it does not matter: the file does not say it
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', vr, [4096, in_word(-1024, vr), 10])
    item.add_new('LUTData', 'US', gamma.tolist())
    tags = {'BitsStored': 12, 'RescaleSlope': 1, 'RescaleIntercept': -1024}
    make(file, TWELVE, syntax, VOILUTSequence=[item], **tags)
    np.testing.assert_array_equal(dicom.read(file), np.rint(gamma / 1023 * 65535).reshape(64, 64))


def test_a_first_input_beyond_32767_of_signed_pixels_that_are_rescaled_to_positive(file):
    pixels = (np.arange(4096).reshape(64, 64) - 2048).astype(np.int16)
    entries = np.arange(4096) // 4
    tags = {'BitsStored': 12, 'RescaleSlope': 1, 'RescaleIntercept': 42048}
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'SS', [4096, in_word(40000, 'SS'), 10])
    item.add_new('LUTData', 'US', entries.tolist())
    make(file, pixels, VOILUTSequence=[item], **tags)
    expected = np.rint(entries / 1023 * 65535).reshape(64, 64)
    np.testing.assert_array_equal(dicom.read(file), expected)


# Padding.


@pytest.mark.parametrize(('vr', 'value'), [('US', 32768), ('SS', -32768)])
def test_padding_of_signed_pixels_in_either_signedness(file, vr, value):
    pixels = np.array([[-32768, -32768, 100], [200, 300, 1100]], np.int16)
    whole = pydicom.dcmread(make(file, pixels))
    whole.add_new('PixelPaddingValue', vr, value)
    whole.save_as(file)
    expected = np.rint((pixels - 100.0) / 1000 * 65535).clip(0)
    np.testing.assert_array_equal(dicom.read(file), expected)


def test_padding_of_unsigned_pixels_stated_as_signed(file):
    pixels = np.array([[65535, 65535, 100], [200, 300, 1100]], np.uint16)
    whole = pydicom.dcmread(make(file, pixels))
    whole.add_new('PixelPaddingValue', 'SS', -10)
    whole.add_new('PixelPaddingRangeLimit', 'SS', -1)
    whole.save_as(file)
    np.testing.assert_array_equal(
        dicom.read(file), [[0, 0, 0], np.rint(np.array([0.1, 0.2, 1]) * 65535)]
    )


# Tags that make no sense: the image is that without them, and a note says which one it was.


def bare_item():
    return [pydicom.Dataset()]


def empty_item():
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'SS', None)
    item.add_new('LUTExplanation', 'LO', 'Secret')
    item.add_new('LUTData', 'OW', None)
    return [item]


def short_item(missing=2, bits=10):
    item = lookup(0, [value // 4 for value in range(4096)][: 4096 - missing], bits)
    item[0].LUTDescriptor = [4096, 0, bits]
    return item


WINDOW = {'WindowCenter': 2048, 'WindowWidth': 2000}


@pytest.mark.parametrize(
    ('tags', 'same_as', 'named'),
    [
        ({'RescaleSlope': 0, 'RescaleIntercept': 0}, {}, 'RescaleSlope is 0'),
        ({'RescaleSlope': 0, 'RescaleIntercept': 5, **WINDOW}, WINDOW, 'RescaleSlope is 0'),
        ({'RescaleSlope': '1e308', 'RescaleIntercept': '1e308'}, {}, 'rescale'),
        ({'RescaleSlope': 'SECRET', 'RescaleIntercept': 0}, {}, 'rescale'),
        ({'RescaleSlope': ['1', '2'], 'RescaleIntercept': 0}, {}, 'rescale'),
        ({'ModalityLUTSequence': bare_item()}, {}, 'ModalityLUTSequence'),
        ({'ModalityLUTSequence': short_item()}, {}, 'ModalityLUTSequence'),
        ({'VOILUTSequence': bare_item(), **WINDOW}, WINDOW, 'VOILUTSequence'),
        ({'VOILUTSequence': empty_item(), **WINDOW}, WINDOW, 'VOILUTSequence'),
        ({'VOILUTSequence': short_item(), **WINDOW}, WINDOW, 'VOILUTSequence'),
        ({'VOILUTSequence': short_item(2048)}, {}, 'VOILUTSequence'),
        ({'VOILUTFunction': ['LINEAR', 'LINEAR'], **WINDOW}, WINDOW, 'VOILUTFunction'),
        ({'VOILUTFunction': 'SECRET', **WINDOW}, WINDOW, 'VOILUTFunction'),
        ({**WINDOW, 'WindowCenter': '2048,5'}, {}, 'window'),
        ({**WINDOW, 'WindowWidth': 'AUTO'}, {}, 'window'),
        ({**WINDOW, 'WindowWidth': 'nan'}, {}, 'window'),
        ({**WINDOW, 'WindowWidth': 0}, {}, 'window'),
        ({**WINDOW, 'WindowWidth': -5}, {}, 'window'),
        ({'WindowCenter': 2048}, {}, 'window'),
        ({'PixelPaddingValue': [0, 4095]}, {}, 'PixelPaddingValue'),
        ({'PixelPaddingValue': 0, 'PixelPaddingRangeLimit': [0, 5]}, {'PixelPaddingValue': 0},
         'PixelPaddingRangeLimit'),
        ({'HighBit': 10}, {}, 'HighBit'),
        ({'HighBit': 16}, {}, 'HighBit'),
        ({'HighBit': [11, 11]}, {}, 'HighBit'),
        ({'NumberOfFrames': 'AUTO'}, {}, 'NumberOfFrames'),
        ({'NumberOfFrames': ['1', '1']}, {}, 'NumberOfFrames'),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings('ignore')
def test_a_tag_that_makes_no_sense_is_ignored_with_a_note(file, monkeypatch, tags, same_as, named):
    monkeypatch.setattr(pydicom.config.settings, 'writing_validation_mode', pydicom.config.IGNORE)
    expected, none = shown(make(file, TWELVE, BitsStored=12, **same_as))
    assert none == ''
    # pydicom sets no number to such a text, but a file may hold one.
    texts = {
        key: value
        for key, value in tags.items()
        if isinstance(value, str) and key != 'VOILUTFunction'
    }
    whole = pydicom.dcmread(
        make(file, TWELVE, BitsStored=12, **{k: v for k, v in tags.items() if k not in texts})
    )
    for keyword, value in texts.items():
        whole.add_new(keyword, 'LO', value)  # which is not checked
    whole.save_as(file)
    image, note = shown(file)
    np.testing.assert_array_equal(image, expected)
    assert named in note
    assert 'secret' not in note.lower()
    assert note.count(';') == 0


def test_missing_and_empty_tags_say_nothing(file):
    plain, _ = shown(make(file, TWELVE, BitsStored=12))
    tags = {'WindowCenter': '', 'WindowWidth': '', 'RescaleSlope': '', 'RescaleIntercept': '',
            'VOILUTFunction': '', 'VOILUTSequence': [], 'ModalityLUTSequence': [],
            'PresentationLUTShape': '', 'NumberOfFrames': ''}  # fmt: skip
    whole = pydicom.dcmread(file)
    for keyword, value in tags.items():
        setattr(whole, keyword, value)
    whole.add_new('PixelPaddingValue', 'US', None)
    del whole.HighBit
    whole.save_as(file)
    image, note = shown(file)
    np.testing.assert_array_equal(image, plain)
    assert note == ''


# Tables of other lengths than stated.


@pytest.mark.parametrize('syntax', SYNTAXES)
def test_a_table_one_entry_short_repeats_its_last_entry(file, syntax):
    make(file, TWELVE, syntax, BitsStored=12, VOILUTSequence=short_item(1))
    image, note = shown(file)
    expected = np.minimum(np.arange(4096), 4094) // 4 / 1023 * 65535
    np.testing.assert_array_equal(dicom.read(file).ravel(), np.rint(expected))
    assert image.max() == 255
    assert 'one entry short' in note


@pytest.mark.parametrize('syntax', SYNTAXES)
@pytest.mark.parametrize('count', [255, 256])
def test_packed_entries_in_words_of_either_order(file, syntax, count):
    entries = 255 - np.arange(count)
    data = entries.astype(np.uint8).tobytes() + b'\0' * (count % 2)
    if syntax == uid.ExplicitVRBigEndian:
        data = np.frombuffer(data, '<u2').astype('>u2').tobytes()
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'US', [count, 0, 8])
    item.add_new('LUTData', 'OW', data)
    image = dicom.read(make(file, RAMP, syntax, VOILUTSequence=[item]))
    np.testing.assert_array_equal(image.ravel(), entries[np.minimum(np.arange(256), count - 1)])


@pytest.mark.parametrize('bits', [0, 8, 99])
def test_entries_beyond_the_bits_that_the_table_states(file, bits):
    item = lookup(0, range(4096), bits)
    image, note = shown(make(file, TWELVE, BitsStored=12, VOILUTSequence=item))
    np.testing.assert_array_equal(image, np.rint(TWELVE / 4095 * 255))
    assert 'bits' in note


# Doubts about the display as a whole.


def test_a_presentation_shape_that_contradicts_is_noted_and_not_followed(file):
    for photometric, right, wrong in (
        ('MONOCHROME1', 'INVERSE', 'IDENTITY'), ('MONOCHROME2', 'IDENTITY', 'INVERSE')
    ):  # fmt: skip
        tags = {'PhotometricInterpretation': photometric}
        expected, _ = shown(make(file, RAMP, **tags))
        for shape, noted in ((right, False), ('LIN OD', False), (wrong, True)):
            image, note = shown(make(file, RAMP, PresentationLUTShape=shape, **tags))
            np.testing.assert_array_equal(image, expected)
            assert ('PresentationLUTShape' in note) == noted


def test_an_image_shown_nearly_uniform_is_noted(file):
    stale = make(file, RAMP, WindowCenter=2048, WindowWidth=4096)
    assert 'nearly uniform' in shown(stale)[1]
    hot = TWELVE.copy()
    hot[0, 0] = 65535
    assert 'nearly uniform' in shown(make(file, hot))[1]
    assert 'nearly uniform' in shown(make(file, RAMP * 0 + 77))[1]
    assert (
        'nearly uniform'
        in shown(make(file, RAMP, PixelPaddingValue=0, PixelPaddingRangeLimit=255))[1]
    )
    for pixels in (RAMP, RAMP // 4, TWELVE):
        assert shown(make(file, pixels))[1] == ''
