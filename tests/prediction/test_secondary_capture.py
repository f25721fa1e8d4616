"""Secondary capture: dciodvfy finds no error, dcmtk reads it, the outline is the mask's."""

import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy import ndimage

from pneumojax.drawing import overlay
from pneumojax.prediction import reference, secondary_capture
from tests.prediction.dicom_objects import ALGORITHM, MALFORMED, MASKS, SHAPE, errors, header, run

GREY = np.random.default_rng(1).integers(0, 255, SHAPE, np.uint8)


def write(path, image, mask, **tags):
    made = secondary_capture.make(header(**tags), image, mask, algorithm=ALGORITHM, key='x')
    reference.write(path, made)
    return pydicom.dcmread(path)


def test_the_outline_is_that_of_the_mask():
    """Its definition: pixels of the mask with a neighbour outside, at most a pixel away."""
    mask = np.zeros((700, 600), np.uint8)
    rows, columns = np.mgrid[:700, :600]
    mask[((rows - 300) / 200) ** 2 + ((columns - 200) / 90) ** 2 < 1] = 1
    mask[280:320, 180:220] = 0
    mask[500:560, 400:410] = 1
    picture = secondary_capture.picture(np.full(mask.shape, 90, np.uint8), mask, 'words')
    drawn = picture[-700:].astype(int)
    # The fill changes blue by 20, the line by 100; between them lie pixels that a line half covers.
    line = drawn[..., 0] - drawn[..., 2] > 130
    edge = (mask > 0) & ~ndimage.binary_erosion(mask)
    assert not (line & (ndimage.distance_transform_edt(~edge) > 1.5)).any()
    assert not (edge & (ndimage.distance_transform_edt(~line) > 1.5)).any()
    outside = ndimage.distance_transform_edt(mask == 0) > 2
    assert (drawn[outside] == 90).all()


@pytest.mark.parametrize('shape', [(40, 30), (700, 600), (512, 3000)])
def test_words_stand_above_the_radiograph(shape):
    """They cover none of it, are not cut off, and are large enough to be read."""
    nothing = np.zeros(shape, np.uint8)
    picture = secondary_capture.picture(nothing, nothing, 'NOT FOR DIAGNOSIS', 'drawn')
    assert max(picture.shape) >= 512
    width = picture.shape[1]
    height = round(shape[0] * width / shape[1])
    strip = picture[: len(picture) - height]
    assert not picture[len(strip) :].any()
    written = strip.any(axis=(0, 2)).nonzero()[0]
    assert written.min() > 0
    assert min(width, 1024) * 0.6 < written.max() < width - 1
    assert strip.any(axis=(1, 2)).sum() > 0.4 * len(strip)
    assert not strip[0].any()
    assert not strip[-1].any()


def test_dcmtk_shows_the_picture(tmp_path):
    read = write(tmp_path / 'x.dcm', GREY, MASKS['some'])
    run('dcm2pnm', '--write-bmp', tmp_path / 'x.dcm', tmp_path / 'x.bmp')
    shown = np.asarray(Image.open(tmp_path / 'x.bmp').convert('RGB'))
    np.testing.assert_array_equal(read.pixel_array, shown)


def test_what_it_says(tmp_path):
    lossy = {
        'LossyImageCompression': '01', 'LossyImageCompressionRatio': 9.5,
        'LossyImageCompressionMethod': 'ISO_10918_1', 'PixelSpacing': [0.2, 0.1],
    }  # fmt: skip
    read = write(tmp_path / 'x.dcm', GREY, MASKS['some'], **lossy)
    assert errors(tmp_path / 'x.dcm', 'SCImage') == []
    assert read.BurnedInAnnotation == 'YES'
    assert list(read.ImageType) == ['DERIVED', 'SECONDARY']
    assert read.SourceImageSequence[0].ReferencedSOPInstanceUID == '1.2.3.1'
    assert (read.StudyInstanceUID, read.PatientName) == ('1.2.3.2', 'Doe^Jane')
    assert read.SeriesInstanceUID != '1.2.3.3'
    assert 'not for diagnosis' in read.SeriesDescription
    assert read.LossyImageCompression == '01'
    assert 'weights=stage2@180' in read.ContributingEquipmentSequence[0].ContributionDescription
    assert list(read.PixelAspectRatio) == [2000, 1000]
    assert overlay.PREDICTED in set(map(tuple, read.pixel_array.reshape(-1, 3).tolist()))


@pytest.mark.parametrize('tags', MALFORMED)
def test_malformed_headers_give_sound_files(tmp_path, tags):
    write(tmp_path / 'x.dcm', GREY, MASKS['some'], **tags)
    assert errors(tmp_path / 'x.dcm', 'SCImage') == []
