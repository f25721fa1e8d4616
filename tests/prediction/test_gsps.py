"""GSPS: dciodvfy finds no error, its lines are the mask's, and dcmtk shows the radiograph by it."""

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from pydicom import uid
from scipy import ndimage

from pneumojax.data.files import headers, inputs
from pneumojax.prediction import gsps, reference
from pneumojax.system import limits
from tests.data.files.dicom_writing import lookup
from tests.prediction.dicom_objects import ALGORITHM, MALFORMED, MASKS, errors, header, run


def write(path, source, mask):
    reference.write(path, gsps.make(source, mask, algorithm=ALGORITHM, key='x'))
    return pydicom.dcmread(path)


def lines(read):
    """Each line as [N, 2] of (column, row)."""
    objects = read.GraphicAnnotationSequence[0].GraphicObjectSequence
    for one in objects:
        assert (one.GraphicType, one.GraphicAnnotationUnits) == ('POLYLINE', 'PIXEL')
        points = np.reshape(one.GraphicData, (-1, 2))
        assert len(points) == one.NumberOfGraphicPoints
        yield points


def drawn(read, shape):
    """The pixels that the lines pass; the centre of the first pixel is at (0.5, 0.5)."""
    picture = Image.new('L', shape[::-1])
    for points in lines(read):
        ImageDraw.Draw(picture).line([tuple(p) for p in np.floor(points)], fill=1)
    return np.asarray(picture)


def test_the_lines_pass_the_outermost_pixels(tmp_path):
    """Their definition: pixels of the mask with a neighbour outside of it."""
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.random((120, 200)), 4)
    mask = (smooth > np.quantile(smooth, 0.7)).astype(np.uint8)
    mask[0, :50], mask[60:70, -1] = 1, 1  # at the border of the image
    read = write(tmp_path / 'x.dcm', header(), mask)
    edge = (mask > 0) & ~ndimage.binary_erosion(mask)
    np.testing.assert_array_equal(drawn(read, mask.shape), edge)


def test_a_single_pixel_has_a_line_around_it(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[7, 29] = 1
    (points,) = lines(write(tmp_path / 'x.dcm', header(), mask))
    assert points.tolist() == [[29, 7], [30, 7], [30, 8], [29, 8], [29, 7]]


def test_lines_are_closed_or_go_on_in_the_next(tmp_path):
    """A tag of a line holds 16,383 numbers: this comb has more corners."""
    mask = np.ones((4, 9000), np.uint8)
    mask[:3, ::2] = 0
    read = write(tmp_path / 'x.dcm', header(), mask)
    assert max(one.NumberOfGraphicPoints for one in
               read.GraphicAnnotationSequence[0].GraphicObjectSequence) == 8000  # fmt: skip
    start = None
    for points in lines(read):
        start = points[0] if start is None else start
        if (points[-1] == start).all():
            start = None
    assert start is None
    assert errors(tmp_path / 'x.dcm', 'GrayscaleSoftcopyPresentationState') == []


def test_an_outline_of_noise_is_refused():
    noise = (np.random.default_rng(0).random((600, 600)) > 0.8).astype(np.uint8)
    with pytest.raises(reference.CannotBeMade, match='more than 100000 points'):
        gsps.make(header(), noise, algorithm=ALGORITHM, key='x')


@pytest.mark.parametrize(
    'tags',
    [
        {},
        {'WindowCenter': 2000, 'WindowWidth': 1500},
        {'WindowCenter': [2000, 9], 'WindowWidth': [1500, 9], 'PhotometricInterpretation':
         'MONOCHROME1'},
        {'RescaleSlope': 0.5, 'RescaleIntercept': 100, 'WindowCenter': 1000, 'WindowWidth': 800},
        {'VOILUTSequence': lookup(0, np.arange(4096) // 4, 10)},
    ],
)  # fmt: skip
def test_dcmtk_shows_the_radiograph_as_before(tmp_path, tags):
    """Presentation states replace the tags of the image: it must not turn dark or inverted."""
    pixels = np.random.default_rng(2).integers(0, 4096, (64, 80)).astype(np.uint16)
    pixels[0, :2] = 0, 4095
    image = header(**tags)
    image.Rows, image.Columns, image.SamplesPerPixel = *pixels.shape, 1
    image.BitsAllocated, image.HighBit, image.Modality = 16, 11, 'DX'
    image.PixelData = pixels.tobytes()
    image['PixelData'].VR = 'OW'
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    image.save_as(tmp_path / 'image.dcm', enforce_file_format=True)
    mask = np.zeros(pixels.shape, np.uint8)
    mask[20:30, 30:50] = 1
    with limits.BoundedFile(tmp_path / 'image.dcm') as file:
        kept = headers.read(file)
    write(tmp_path / 'x.dcm', kept, mask)
    assert errors(tmp_path / 'x.dcm', 'GrayscaleSoftcopyPresentationState') == []
    arguments = '--pstate', tmp_path / 'x.dcm', tmp_path / 'image.dcm', tmp_path / 'x.pgm'
    run('dcmp2pgm', *arguments)
    shown = cv2.imread(str(tmp_path / 'x.pgm'), cv2.IMREAD_GRAYSCALE)
    expected = inputs.read(tmp_path / 'image.dcm').image
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_what_it_says(tmp_path):
    read = write(tmp_path / 'x.dcm', header(PixelSpacing=[0.2, 0.1]), MASKS['some'])
    assert errors(tmp_path / 'x.dcm', 'GrayscaleSoftcopyPresentationState') == []
    assert 'Test passed' in run('dcmpschk', tmp_path / 'x.dcm')
    words = read.GraphicAnnotationSequence[0].TextObjectSequence[0]
    assert words.UnformattedTextValue == 'RESEARCH - NOT FOR DIAGNOSIS'
    referenced = read.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == '1.2.3.3'
    assert referenced.ReferencedImageSequence[0].ReferencedSOPInstanceUID == '1.2.3.1'
    assert (read.StudyInstanceUID, read.PatientName) == ('1.2.3.2', 'Doe^Jane')
    assert 'weights=stage2@180' in read.ContributingEquipmentSequence[0].ContributionDescription
    area = read.DisplayedAreaSelectionSequence[0]
    assert list(area.PresentationPixelAspectRatio) == [2000, 1000]


@pytest.mark.parametrize('tags', MALFORMED)
def test_malformed_headers_give_sound_files(tmp_path, tags):
    write(tmp_path / 'x.dcm', header(**tags), MASKS['some'])
    assert errors(tmp_path / 'x.dcm', 'GrayscaleSoftcopyPresentationState') == []
