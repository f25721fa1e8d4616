"""DICOM files: what is read must be what pydicom reads, what is refused must be refused by name."""

import contextlib
import io
import pathlib

import numpy as np
import pydicom
from pydicom import uid

from pneumojax.data.files import dicom, inputs
from pneumojax.system import limits
from tests.fuzz import dicom_seeds, mutate
from tests.fuzz.worker import Wrong, refused

MAX_PIXELS = 4_000_000
_TAGS = (
    'Rows', 'Columns', 'SamplesPerPixel', 'PhotometricInterpretation', 'BitsAllocated',
    'BitsStored', 'HighBit', 'PixelRepresentation', 'NumberOfFrames', 'PixelPaddingValue',
    'PixelPaddingRangeLimit', 'RescaleSlope', 'RescaleIntercept', 'VOILUTFunction',
    'WindowCenter', 'WindowWidth', 'SOPClassUID', 'SOPInstanceUID', 'Modality',
    'SpecificCharacterSet', 'PatientName', 'PatientBirthDate', 'PixelSpacing', 'ViewPosition',
    'BodyPartExamined', 'PixelAspectRatio', 'InstanceNumber', 'PatientOrientation',
)  # fmt: skip
_VALUES = (
    None, '', 0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 65535, -1, 100_000, '0', '-0', '1e308', 'nan',
    'inf', '1e-320', dicom_seeds.NAME, '../../x', 'MONOCHROME1', 'MONOCHROME2', 'RGB', 'SIGMOID',
    'LINEAR_EXACT', ['1', '0'], ['1', dicom_seeds.NAME], 'ISO_IR 192', ['', 'ISO 2022 IR 87'],
    b'\xff\xfe', ' ' * 1000, '<script>',
)  # fmt: skip
_WITH_DISPLAY = (
    'PixelPaddingValue', 'ModalityLUTSequence', 'RescaleSlope', 'RescaleIntercept',
    'VOILUTSequence', 'WindowCenter', 'WindowWidth',
)  # fmt: skip


class Dicom:
    """Whole files, damaged by the byte, by the tag, or in their pixel data."""

    def __init__(self, folder: pathlib.Path):
        self.path = folder / 'input.dcm'
        self.good = [*dicom_seeds.phantoms().values()]
        self.seeds = [*self.good, *dicom_seeds.segmentations().values()]
        self.seeds += [*dicom_seeds.bundled().values()]
        self.bombs = [*dicom_seeds.bombs().values()]

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One damaged file."""
        source = self.good if rng.integers(5) else self.seeds
        seed = source[int(rng.integers(len(source)))]
        match rng.integers(10):
            case 0 | 1:
                made = mutate.data(rng, seed, self.seeds)
            case 2 | 3 | 4:
                made = mutate.data(rng, seed, upto=1600)
            case 5 | 6:
                made = self._tags(rng, seed)
            case 7 | 8:
                at = max(seed.rfind(b'\xe0\x7f\x10\0'), 0)
                made = seed[:at] + mutate.data(rng, seed[at:], self.seeds)
            case _ if rng.integers(8) == 0:
                made = self.bombs[int(rng.integers(len(self.bombs)))]
            case _:
                made = mutate.data(rng, self._tags(rng, seed), self.seeds)
        return {'input.dcm': made}

    def _tags(self, rng, seed):
        """The file with some tags of other values, types or lengths."""
        ignore = pydicom.config.IGNORE
        with contextlib.suppress(Exception):  # not every value can be written
            made = pydicom.dcmread(io.BytesIO(seed))
            for _ in range(int(rng.integers(1, 4))):
                tag = pydicom.datadict.tag_for_keyword(_TAGS[int(rng.integers(len(_TAGS)))])
                vr = pydicom.datadict.dictionary_VR(tag)
                vr = 'US' if 'US' in vr else vr
                vr = str(rng.choice(['LO', 'UN', 'OB', 'DS', 'SQ'])) if not rng.integers(5) else vr
                value = _VALUES[int(rng.integers(len(_VALUES)))]
                made[tag] = pydicom.DataElement(tag, vr, value, validation_mode=ignore)
            buffer = io.BytesIO()
            made.save_as(buffer)
            return buffer.getvalue()
        return mutate.data(rng, seed, upto=1600)

    def check(self, case: dict[str, bytes]) -> str:
        """Read it as `predict` does; compare a success with pydicom's own reading."""
        self.path.write_bytes(case['input.dcm'])
        try:
            radiograph = inputs.read(self.path, max_pixels=MAX_PIXELS)
        except (inputs.Skipped, inputs.Unreadable) as error:
            return refused(error)
        for note in radiograph.notes:
            if 'zzname' in note.lower():
                raise Wrong(f'a note names the patient: {note!r}')
        if radiograph.header is not None:
            return self._compare(radiograph.image)
        return 'a picture'

    def _compare(self, image):
        try:
            whole = pydicom.dcmread(self.path)
            stored = stored_values(whole)
        except Exception as error:
            self._reread(error)
            return f'read, where pydicom says {type(error).__name__}'
        if image.shape != stored.shape:
            raise Wrong(f'shape {image.shape}, pydicom says {stored.shape}')
        if any(keyword in whole for keyword in _WITH_DISPLAY):
            return 'read, of the right shape'
        expected = plain_display(whole, stored)
        if not np.array_equal(image, expected):
            off = np.abs(image.astype(int) - expected).max()
            raise Wrong(f'pixels differ from pydicom by up to {off}')
        return 'read, pixel for pixel as pydicom'

    def _reread(self, error):
        """pydicom fails on the whole file: it must be over tags that make no pixels."""
        with limits.BoundedFile(self.path) as file:
            ours, _ = dicom._parse(file, MAX_PIXELS)
        try:
            stored_values(ours)
        except Exception as again:
            raise Wrong(f'read, but pydicom says {type(again).__name__}: {again}') from error


def stored_values(whole: pydicom.Dataset) -> np.ndarray:
    """pydicom's decoding; JPEG by Pillow, which is not the decoder under test."""
    syntax = whole.file_meta.TransferSyntaxUID
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        from pydicom.pixels import pixel_array

        return pixel_array(whole, decoding_plugin='pillow')
    return whole.pixel_array


def plain_display(whole: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Display values by hand where no tag says more, uint8."""
    bits, signed = int(whole.BitsStored), bool(whole.PixelRepresentation)
    values = stored.astype(np.int64) & ((1 << bits) - 1)
    if signed:
        values[values >= 1 << bits - 1] -= 1 << bits
    if bits <= 8:
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    else:
        low, high = int(values.min()), int(values.max())
    unit = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    deep = np.rint(unit * 65535)
    if whole.PhotometricInterpretation == 'MONOCHROME1':
        deep = 65535 - deep
    return np.floor(deep / 257 + 0.5).astype(np.uint8)


MAKE = {'dicom': Dicom}
