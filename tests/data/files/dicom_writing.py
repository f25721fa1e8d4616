"""DICOM files for tests: valid ones, and ones of which a single thing is wrong."""

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from pneumojax.data.files import dicom

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


def picture(height=40, width=56, seed=0):
    """A smooth grey picture, which JPEG keeps well."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path, pixels, syntax=uid.ExplicitVRLittleEndian, *, frame=None, **tags):
    """Writes a valid file; `tags` replace or, when None, remove what is there."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = '1.2.3'
    dataset.PatientName, dataset.PatientID = 'Secret^Name', 'SECRET'
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    bits = 8 * pixels.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == 'i')
    order = '>' if syntax == uid.ExplicitVRBigEndian else '<'
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = data if frame is None else encapsulate([frame])
    dataset['PixelData'].VR = 'OB' if bits == 8 else 'OW'
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    if 'HighBit' not in tags and tags.get('BitsStored'):
        dataset.HighBit = dataset.BitsStored - 1
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_jpeg(path, pixels, syntax=uid.JPEGBaseline8Bit, **tags):
    frame = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    tags = {'BitsAllocated': 8, 'BitsStored': 8, **tags}
    return write(path, pixels, syntax, frame=frame, **tags)


def assert_refused(path, expected, **arguments):
    with pytest.raises(dicom.DicomError, match=expected) as error:
        dicom.read(path, **arguments)
    message = str(error.value)
    assert message.startswith(f'{path}: ')
    assert '\n' not in message
    assert 'secret' not in message.lower()
    assert isinstance(error.value, ValueError)


def lookup(first, data, bits, packed=False):
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'SS' if first < 0 else 'US', [len(data), first, bits])
    if packed:
        item.add_new('LUTData', 'OW', np.asarray(data, np.uint8).tobytes())
    else:
        item.add_new('LUTData', 'US', [int(value) for value in data])
    return [item]
