"""Every file that pydicom brings, read as pydicom itself reads it, or refused with a reason.

The reference is a second definition: pydicom's own decoding and transformations on the whole file.
"""

import pathlib

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom import uid
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing, pixel_array

from pneumojax.data.files import dicom, inputs

FOLDER = pathlib.Path(pydicom.data.__file__).parent
FILES = sorted(path for path in FOLDER.rglob('*') if path.is_file())


def reference(path) -> np.ndarray | None:
    """Display values as shares of their range, NaN where padding is; None where pydicom fails."""
    whole = pydicom.dcmread(path)
    lossy = whole.file_meta.TransferSyntaxUID in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
    try:
        stored = pixel_array(whole, decoding_plugin='pillow' if lossy else '')
    except Exception:
        return None
    bits, signed = whole.BitsStored, bool(whole.PixelRepresentation)
    stored = stored.astype(np.int64) & ((1 << bits) - 1)
    stored = np.where(signed & (stored >= 1 << bits - 1), stored - (1 << bits), stored)
    padding = np.zeros(stored.shape, bool)
    if 'PixelPaddingValue' in whole:
        padding = stored == whole.PixelPaddingValue
    if bits <= 8:
        ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    else:
        ends = stored[~padding].min(), stored[~padding].max()
    values, ends = (apply_modality_lut(np.array(v), whole) for v in (stored, ends))
    if whole.get('VOILUTSequence'):
        unit = apply_voi(values, whole) / ((1 << whole.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif whole.get('WindowWidth') is not None:
        low, high = apply_windowing(np.array([-1e9, 1e9]), whole)
        unit = (apply_windowing(values, whole) - low) / (high - low)
    else:
        unit = (values - ends.min()) / max(np.ptp(ends), 1e-9)
    if whole.PhotometricInterpretation == 'MONOCHROME1':
        unit = 1 - unit
    return np.where(padding, np.nan, unit)


def is_grey_frame(path) -> bool:
    """Whether pydicom finds one grey frame of pixels in the file."""
    try:
        whole = pydicom.dcmread(path)
        return (
            whole.SamplesPerPixel == 1
            and whole.PhotometricInterpretation.startswith('MONOCHROME')
            and (whole.get('NumberOfFrames') or 1) == 1
            and bool(whole.PixelData)
            and 'TransferSyntaxUID' in whole.file_meta
            and whole.BitsStored <= whole.BitsAllocated <= 32
        )
    except Exception:
        return False


GREY = [path for path in FILES if is_grey_frame(path)]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('path', GREY, ids=lambda p: p.name)
def test_pixels_are_those_of_pydicom(path):
    expected = reference(path)
    by_gdcm = ('JPEG-lossy.dcm', 'JPGExtended.dcm')  # 12 bits, which pydicom hands to no decoder
    # A header of 3,722,445,056 columns over 266 bytes: old GDCM or OpenJPEG make pixels of it.
    nonsense = path.name == 'JPEG2000-embedded-sequence-delimiter.dcm'
    if nonsense or (expected is None and path.name not in by_gdcm):
        with pytest.raises(dicom.DicomError):
            dicom.read(path)
        return
    image = dicom.read(path)
    if expected is None:
        assert image.shape == (1024, 256)
        return
    unit = image / np.iinfo(image.dtype).max
    assert image.shape == expected.shape
    padding = np.isnan(expected)
    np.testing.assert_allclose(unit[~padding], expected[~padding], atol=1 / 65535)
    assert not image[padding].any()


def test_there_are_enough_of_them():
    assert len(GREY) >= 40
    syntaxes = {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in GREY}
    assert len(syntaxes) >= 8


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_file_is_an_image_or_has_a_reason(path):
    reason = ''
    try:
        radiograph = inputs.read(path)
    except (inputs.Skipped, inputs.Unreadable) as error:
        reason = str(error)
    if reason:
        assert '\n' not in reason
    else:
        assert is_grey_frame(path) or path.suffix in ('.png', '.jpg')
        assert radiograph.image.dtype == np.uint8
