"""Headers to make DICOM objects of, and the programs that judge what was made."""

import pathlib
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom import uid

from pneumojax.prediction import reference

ALGORITHM = reference.Algorithm(
    '0.1.0', 'stage2@180', {'top': '0.7', 'area': '800', 'bottom': '0.3'}
)
SHAPE = (33, 57)  # neither side a multiple of 8: bits are packed
RNG = np.random.default_rng(0)
MASKS = {
    'some': (RNG.random(SHAPE) > 0.7).astype(np.uint8),
    'none': np.zeros(SHAPE, np.uint8),
    'all': np.ones(SHAPE, np.uint8),
}
MALFORMED = (
    {'PatientName': '<script>alert(1)</script>', 'PatientSex': 'Male'},
    {'PatientName': '山田^太郎', 'StudyID': 'more than sixteen characters'},
    {'PatientName': 'a' * 300, 'PatientID': 'b' * 300},
    {'PatientID': ['1', '2'], 'StudyDate': '2024', 'StudyTime': '99:99'},
    {'StudyDate': '19700230', 'PatientBirthDate': '19701301', 'AccessionNumber': '1\0'},
    {'PatientBirthDate': 'May 1970', 'PatientOrientation': 'A'},
    {'PatientOrientation': ['Q', 'Z'], 'InstanceNumber': '99999999999'},
    {'PixelSpacing': ['0', '1'], 'ImagerPixelSpacing': '0.1'},
    {'WindowCenter': '7', 'WindowWidth': '-1', 'RescaleSlope': '0', 'VOILUTFunction': '?'},
    dict.fromkeys(
        ('PatientName', 'PatientID', 'PatientSex', 'PatientBirthDate', 'StudyDate', 'PixelSpacing')
    ),
)


def header(**tags) -> pydicom.Dataset:
    """The header of a radiograph, with other tags, or without those that are None."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = '1.2.3.1', '1.2.3.2'
    dataset.SeriesInstanceUID = '1.2.3.3'
    dataset.PatientName, dataset.PatientID = 'Doe^Jane', '17'
    dataset.PatientSex, dataset.PatientBirthDate = 'F', '19700102'
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = '20240102', '101112', '5'
    dataset.PatientOrientation, dataset.BodyPartExamined = ['L', 'F'], 'CHEST'
    dataset.PixelSpacing = [0.143, 0.15]
    dataset.PhotometricInterpretation, dataset.BitsStored = 'MONOCHROME2', 12
    dataset.PixelRepresentation = 0
    # As foreign files come: nothing is checked when it is set.
    ignore = pydicom.config.IGNORE
    old = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = ignore
    try:
        for keyword, value in tags.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                tag = pydicom.datadict.tag_for_keyword(keyword)
                vr = pydicom.datadict.dictionary_VR(tag)
                dataset[tag] = pydicom.DataElement(tag, vr, value, validation_mode=ignore)
    finally:
        pydicom.config.settings.reading_validation_mode = old
    return dataset


def errors(path: pathlib.Path, kind: str) -> list[str]:
    """What dciodvfy calls an error. The object must be of the kind that it names."""
    said = run('dciodvfy', '-new', path, status=None)
    assert kind in said
    return [line for line in said.splitlines() if 'Error' in line]


def run(program: str, *arguments: object, status: int | None = 0) -> str:
    """What a program says. Skips the test where it is not installed."""
    try:
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip(f'{program} is not installed')
    said = (done.stdout + done.stderr).decode()
    assert status is None or done.returncode == status, said
    return said
