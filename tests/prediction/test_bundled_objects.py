"""Objects about every radiograph that comes with pydicom, in many character sets."""

import pathlib

import numpy as np
import pydicom
import pydicom.data
import pytest

from pneumojax.data.files import headers, inputs
from pneumojax.prediction import gsps, laterality, reference, secondary_capture, seg, sr
from tests.prediction.dicom_objects import ALGORITHM, errors

FOLDER = pathlib.Path(pydicom.data.__file__).parent
KINDS = {
    'seg': 'Segmentation', 'empty seg': 'Segmentation', 'fractional seg': 'Segmentation',
    'sr': 'SR', 'secondary capture': 'SCImage', 'gsps': 'GrayscaleSoftcopyPresentationState',
}  # fmt: skip


def radiographs():
    for path in sorted(FOLDER.rglob('*')):
        if not path.is_file() or path.suffix in ('.py', '.pyc'):
            continue
        try:
            found = inputs.read(path, accept='any')
        except (inputs.Skipped, inputs.Unreadable):
            continue
        if found.header is not None:
            yield path.name, found


@pytest.fixture(scope='module')
def bundled():
    return dict(radiographs())


def objects(radiograph):
    """One of each kind, with a square that is marked."""
    header, image = radiograph.header, radiograph.image
    mask = np.zeros(image.shape, np.uint8)
    mask[len(mask) // 4 : len(mask) // 2, mask.shape[1] // 8 : mask.shape[1] // 3] = 1
    of, area, spacing = {'algorithm': ALGORITHM, 'key': 'x'}, int(mask.sum()), radiograph.spacing
    source = reference.reference(header, mask.shape)
    finding = sr.Finding(
        mask.shape, 0.9, area, spacing and area * spacing[0] * spacing[1],
        laterality.side(mask, reference.orientation(header)), 'Calibrated.',
    )  # fmt: skip
    named = seg.instance(source, 'binary', ALGORITHM, 'x')
    return {
        'seg': seg.make(header, mask, kind='binary', **of),
        'empty seg': seg.make(header, mask * 0, kind='binary', **of),
        'fractional seg': seg.make(header, mask.astype(np.float32), kind='fractional', **of),
        'sr': sr.make(header, finding, segmentation=named, **of),
        'secondary capture': secondary_capture.make(header, image, mask, **of),
        'gsps': gsps.make(header, mask, **of),
    }


@pytest.mark.filterwarnings('ignore')
def test_dciodvfy_finds_no_error(bundled, tmp_path):
    count = 0
    for name, radiograph in bundled.items():
        try:
            made = objects(radiograph)
        except reference.NoReference:
            assert 'StudyInstanceUID' not in radiograph.header
            continue
        count += 1
        for kind, dataset in made.items():
            reference.write(tmp_path / 'x.dcm', dataset)
            assert errors(tmp_path / 'x.dcm', KINDS[kind]) == [], (name, kind)
            read = pydicom.dcmread(tmp_path / 'x.dcm')
            assert read.PatientName == radiograph.header.get('PatientName', ''), (name, kind)
            assert read.SpecificCharacterSet == 'ISO_IR 192'
    assert count >= 15


def test_a_spacing_is_that_of_the_radiograph(bundled):
    for radiograph in bundled.values():
        keyword = headers.spacing_keyword(radiograph.header)
        assert (keyword is None) == (radiograph.spacing is None)
        if keyword is not None:
            assert list(radiograph.spacing) == list(radiograph.header[keyword].value)
