"""Grey stored as colour is read as the same grey; a colour image is still skipped."""

import io

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid

from pneumojax.data.datasets import folder_dataset
from pneumojax.data.files import dicom, inputs
from tests.data.files.test_inputs import PICTURE, make

RGB = {'SamplesPerPixel': 3, 'PhotometricInterpretation': 'RGB', 'PlanarConfiguration': 0}
TINTED = np.dstack([PICTURE, PICTURE, np.minimum(PICTURE, 200)])


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'image.dcm'


def tagged(photometric, **tags):
    return {**RGB, 'PhotometricInterpretation': photometric, **tags}


def is_colour(path):
    """Whether the file is skipped as colour, by prediction and by a folder of one's own images."""
    try:
        inputs.read(path)
    except inputs.Skipped:
        assert folder_dataset._look(str(path)) == dicom.COLOUR
        with pytest.raises(dicom.DicomError, match='colour'):
            dicom.read(path)
        return True
    assert isinstance(folder_dataset._look(str(path)), folder_dataset.Image)
    return False


@pytest.mark.parametrize(
    'syntax', [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless]
)
@pytest.mark.parametrize('planar', [0, 1])
def test_rgb(file, planar, syntax):
    for channels, colour in ((np.dstack([PICTURE] * 3), False), (TINTED, True)):
        pixels = channels.transpose(2, 0, 1) if planar else channels
        if syntax == uid.RLELossless:
            make(file, channels, **RGB)
            whole = pydicom.dcmread(file)
            whole.compress(syntax)
            whole.save_as(file)
        else:
            make(file, np.ascontiguousarray(pixels), syntax, **RGB | {
                'PlanarConfiguration': planar, 'Rows': PICTURE.shape[0], 'Columns': PICTURE.shape[1]
            })  # fmt: skip
        assert is_colour(file) == colour
        if not colour:
            np.testing.assert_array_equal(dicom.read(file), PICTURE)


def test_rgb_of_sixteen_bits(file):
    deep = PICTURE.astype(np.uint16) * 150
    make(file, np.dstack([deep, deep + 500, deep]), **RGB)
    assert not is_colour(file)
    make(file, np.dstack([deep, deep + 2000, deep]), **RGB)
    assert is_colour(file)
    np.testing.assert_array_equal(dicom.read(make(file, np.dstack([deep] * 3), **RGB)), deep)


def test_ybr(file):
    middle = np.full_like(PICTURE, 128)
    make(file, np.dstack([PICTURE, middle, middle]), **tagged('YBR_FULL'))
    np.testing.assert_array_equal(dicom.read(file), PICTURE)
    assert not is_colour(file)
    assert is_colour(make(file, np.dstack([PICTURE, middle, middle + 30]), **tagged('YBR_FULL')))
    pairs = np.full((*PICTURE.shape, 2), 128, np.uint8)  # Y1 Y2 Cb Cr
    pairs.reshape(-1, 4)[:, :2] = PICTURE.reshape(-1, 2)
    make(file, pairs, **tagged('YBR_FULL_422'))
    np.testing.assert_array_equal(dicom.read(file), PICTURE)
    assert not is_colour(file)


@pytest.mark.parametrize('photometric', ['YBR_FULL_422', 'RGB', ' ybr_full_422'])
def test_jpeg(file, photometric):
    for channels, colour in ((np.dstack([PICTURE] * 3), False), (TINTED, True)):
        code = cv2.imencode('.jpg', channels)[1].tobytes()
        make(file, channels, uid.JPEGBaseline8Bit, frame=code, **tagged(photometric))
        assert is_colour(file) == colour
        if not colour:
            grey = np.asarray(Image.open(io.BytesIO(code)).convert('RGB'))[..., 1]
            np.testing.assert_array_equal(dicom.read(file), grey)


@pytest.mark.parametrize('bits', [8, 16])
def test_palettes(file, bits):
    entries = (255 - np.arange(256)) * (257 if bits == 16 else 1)
    for shift, colour in ((0, False), (64, True)):
        tags = {'PhotometricInterpretation': 'PALETTE COLOR'}
        for name in ('Red', 'Green', 'Blue'):
            data = np.roll(entries, shift if name == 'Blue' else 0)
            tags[f'{name}PaletteColorLookupTableDescriptor'] = [256, 0, bits]
            tags[f'{name}PaletteColorLookupTableData'] = data.astype(f'<u{bits // 8}').tobytes()
        make(file, PICTURE, **tags)
        assert is_colour(file) == colour
        if not colour:
            np.testing.assert_array_equal(dicom.to_uint8(dicom.read(file)), 255 - PICTURE)


def test_colour_that_cannot_be_decoded_is_not_taken_for_grey(file):
    assert is_colour(make(file, PICTURE, PhotometricInterpretation='PALETTE COLOR'))
    assert is_colour(make(file, PICTURE, **RGB))
    assert is_colour(make(file, PICTURE, PhotometricInterpretation='HSV'))


def test_windows_are_not_for_colour(file):
    make(file, np.dstack([PICTURE] * 3), WindowCenter=10, WindowWidth=20, **RGB)
    np.testing.assert_array_equal(dicom.read(file), PICTURE)


@pytest.mark.parametrize('written', ['monochrome1', ' MONOCHROME1', 'Monochrome1 '])
def test_the_photometric_interpretation_in_another_spelling(file, written):
    make(file, PICTURE)
    whole = pydicom.dcmread(file)
    whole.add_new('PhotometricInterpretation', 'LO', written)
    whole.save_as(file)
    np.testing.assert_array_equal(inputs.read(file).image, 255 - PICTURE)
