"""What every DICOM object about a radiograph has in common: patient, study, UIDs, who made it.

An object copies the patient and the study of its radiograph, so that an archive files it in the
same study. It therefore holds the patient's name, as the radiograph does.
"""

import io
import os
import re
import unicodedata
from typing import Any, NamedTuple

import highdicom as hd
import pydicom
from pydicom import uid, valuerep
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes

from pneumojax.data.files import headers
from pneumojax.system import atomic

WARNING = 'RESEARCH - NOT FOR DIAGNOSIS'
DESCRIPTION = 'Research, not for diagnosis'  # where a viewer lists the object

_UIDS = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID')
_COPIED = (
    'PatientName', 'PatientID', 'PatientBirthDate', 'PatientSex', 'StudyDate', 'StudyTime',
    'StudyID', 'AccessionNumber', 'ReferringPhysicianName',
)  # fmt: skip


class Algorithm(NamedTuple):
    """What made the mask, as the objects state it; other values give other UIDs."""

    version: str  # of this package
    run: str  # which weights, such as a run's name and step
    parameters: dict[str, str]  # thresholds, runtime, and what the network was trained on

    @property
    def warning(self) -> str:
        """What follows 'not for diagnosis' where that is not all."""
        trained_on = self.parameters.get('trained_on')
        return f'; trained on {trained_on}' if trained_on else ''

    def statements(self) -> list[str]:
        """The weights and each parameter, as `name=value`."""
        return [f'weights={self.run}', *(f'{k}={v}' for k, v in self.parameters.items())]


class Instance(NamedTuple):
    """The UIDs of an object."""

    series: str
    sop: str


class CannotBeMade(ValueError):
    """There is no such object about this radiograph; the message says why, without quoting it."""


class NoReference(CannotBeMade):
    """The radiograph cannot be referenced."""


def reference(header: pydicom.Dataset, shape: tuple[int, ...]) -> pydicom.Dataset:
    """The parts of a radiograph that an object copies; malformed values are emptied.

    Args:
      header: of the radiograph, see `pneumojax.data.files.headers`.
      shape: (rows, columns) of its pixels.

    Raises:
      NoReference: its UIDs are missing or malformed.
    """
    source = pydicom.Dataset()
    # The names are decoded already; UTF-8 can encode all of them.
    source.SpecificCharacterSet = 'ISO_IR 192'
    for keyword in _UIDS:
        value = str(header.get(keyword) or '')
        if not value:
            raise NoReference(f'the file has no {keyword}')
        if not uid.UID(value).is_valid:
            raise NoReference(f'the {keyword} is malformed')
        setattr(source, keyword, value)
    for keyword in _COPIED:
        setattr(source, keyword, clean(header, keyword))
    source.Rows, source.Columns = shape
    source.SamplesPerPixel = 1
    return source


def emptied(header: pydicom.Dataset) -> list[str]:
    """Keywords of the tags that the source states and that `reference` empties."""
    return [key for key in _COPIED if headers.text(header, key) and not clean(header, key)]


def orientation(header: pydicom.Dataset) -> list[str] | str:
    """PatientOrientation: the directions of rows and of columns; '' if it is not stated soundly."""
    value = header.get('PatientOrientation')
    pair = [str(part) for part in value] if isinstance(value, MultiValue) else []
    return pair if len(pair) == 2 and all(re.fullmatch('[LRAPHF]{1,3}', p) for p in pair) else ''


def instance(
    kind: str, source: pydicom.Dataset, key: str, algorithm: Algorithm, *others: str
) -> Instance:
    """UIDs that are the same whenever the same is made of the same.

    Args:
      kind: of object, such as 'seg'. One kind about one series of radiographs is one series.
      source: see `reference`.
      key: objects with different keys get different UIDs.
      algorithm: what made the mask.
      others: whatever else the content depends on.
    """
    mine = kind, algorithm.version, algorithm.run, *sorted(algorithm.parameters.items()), *others
    return Instance(
        uid_of('series', source.SeriesInstanceUID, *mine),
        uid_of('instance', source.SOPInstanceUID, key, *mine),
    )


def uid_of(*parts: object) -> str:
    """A UID that depends on the parts alone."""
    return uid.generate_uid(entropy_srcs=['pneumojax', *map(str, parts)])


def identity(header: pydicom.Dataset, made: Instance, algorithm: Algorithm) -> dict[str, Any]:
    """Arguments that the constructors of all of highdicom's objects take."""
    return {
        'series_instance_uid': made.series,
        'sop_instance_uid': made.sop,
        'instance_number': _number(header.get('InstanceNumber')),
        'manufacturer': 'pneumojax',
        'manufacturer_model_name': 'pneumojax',
        'software_versions': algorithm.version,
        'device_serial_number': 'none',
        'series_description': f'Pneumothorax: {DESCRIPTION.lower()}',
    }


def add_body_part(dataset: pydicom.Dataset, header: pydicom.Dataset) -> None:
    """States that the chest is shown, if the radiograph does; else that a laterality is unknown."""
    if headers.text(header, 'BodyPartExamined').upper() == 'CHEST':
        dataset.BodyPartExamined = 'CHEST'  # which is no paired structure: it has no laterality
    else:
        dataset.Laterality = ''


def equipment(algorithm: Algorithm) -> hd.ContributingEquipment:
    """The algorithm, for objects that have no place of their own for it."""
    return hd.ContributingEquipment(
        manufacturer='pneumojax',
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name='pneumojax',
        software_versions=algorithm.version,
        contribution_description='; '.join(algorithm.statements())[:1024],
    )


def write(path: str | os.PathLike, dataset: pydicom.Dataset) -> None:
    """Writes an object; the file appears whole or not at all."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    atomic.write(path, buffer.getvalue())


def clean(header: pydicom.Dataset, keyword: str) -> Any:
    """The value, or '' if it is missing or breaks the rules of its type."""
    if keyword not in header:
        return ''
    element = header[keyword]
    if element.value is None:
        return ''
    text = str(element.value)
    try:
        if element.VM > 1 or any(unicodedata.category(letter) == 'Cc' for letter in text):
            return ''
        valuerep.validate_value(element.VR, text, pydicom.config.RAISE)
        if element.VR in ('DA', 'TM'):  # the form may be right, and the 30th of February in it
            {'DA': valuerep.DA, 'TM': valuerep.TM}[element.VR](text)
    except ValueError:
        return ''
    if keyword == 'PatientSex' and text not in ('M', 'F', 'O'):
        return ''
    return element.value


def _number(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return 1
    return number if 1 <= number < 2**31 else 1
