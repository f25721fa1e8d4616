"""DICOM files: what is read must be what pydicom reads, what is refused must be refused by name."""

import contextlib
import io
import pathlib

import numpy as np
import pydicom
from pydicom import uid
from pydicom.pixels import pixel_array

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
    'PresentationLUTShape', 'PlanarConfiguration', 'VOILUTSequence', 'ModalityLUTSequence',
    'LUTDescriptor', 'LUTData', 'ViewCodeSequence', 'PatientID', 'ImagerPixelSpacing',
    'RedPaletteColorLookupTableDescriptor', 'GreenPaletteColorLookupTableData',
)  # fmt: skip
_VALUES = (
    None, '', 0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 65535, -1, 100_000, '0', '-0', '1e308', 'nan',
    'inf', '1e-320', dicom_seeds.NAME, '../../x', 'MONOCHROME1', 'MONOCHROME2', 'RGB', 'SIGMOID',
    'LINEAR_EXACT', ['1', '0'], ['1', dicom_seeds.NAME], 'ISO_IR 192', ['', 'ISO 2022 IR 87'],
    b'\xff\xfe', ' ' * 1000, '<script>', '1,5', 'AUTO', 'LINEAR', ['LINEAR', 'LINEAR'], 11, 13, 15,
    24, -1024, '-1024', '0.5', 'IDENTITY', 'INVERSE', 'monochrome2', [256, 0, 16], [0, 65535, 8],
    [7, 7], bytes(256),
)  # fmt: skip
_TABLES = (
    'ModalityLUTSequence',
    'VOILUTSequence',
    'PresentationLUTShape',
    'PixelPaddingRangeLimit',
)


class Dicom:
    """Whole files, damaged by the byte, by the tag, or in their pixel data."""

    def __init__(self, folder: pathlib.Path):
        self.path = folder / 'input.dcm'
        self.good = [*dicom_seeds.phantoms().values()]
        self.odd = [*dicom_seeds.odd().values()]
        self.seeds = [*self.good, *dicom_seeds.segmentations().values()]
        self.seeds += [*dicom_seeds.bundled().values()]
        self.bombs = [*dicom_seeds.bombs().values()]

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One damaged file."""
        source = (self.seeds, self.odd, self.odd, self.good, self.good)[int(rng.integers(5))]
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
            case _ if rng.integers(8) == 0 and source is self.odd:
                made = seed
            case _ if rng.integers(8) == 0:
                made = self.bombs[int(rng.integers(len(self.bombs)))]
            case _:
                made = mutate.data(rng, self._tags(rng, seed), self.seeds)
        name = 'input' if rng.integers(4) == 0 else 'input.dcm'
        return {name: made}

    def _tags(self, rng, seed):
        """The file with some tags of other values, types or lengths."""
        ignore = pydicom.config.IGNORE
        with contextlib.suppress(Exception):  # not every value can be written
            made = pydicom.dcmread(io.BytesIO(seed), force=True)
            for _ in range(int(rng.integers(1, 4))):
                holders = [made, *(item for element in made if element.VR == 'SQ'
                                   for item in element.value or ())]  # fmt: skip
                holder = holders[int(rng.integers(len(holders)))]
                tag = pydicom.datadict.tag_for_keyword(_TAGS[int(rng.integers(len(_TAGS)))])
                if rng.integers(10) == 0:
                    holder.pop(tag, None)
                    continue
                vr = pydicom.datadict.dictionary_VR(tag)
                vr = 'US' if 'US' in vr else vr
                vr = str(rng.choice(['LO', 'UN', 'OB', 'DS', 'SQ'])) if not rng.integers(5) else vr
                value = _VALUES[int(rng.integers(len(_VALUES)))]
                holder[tag] = pydicom.DataElement(tag, vr, value, validation_mode=ignore)
            buffer = io.BytesIO()
            made.save_as(buffer)
            return buffer.getvalue()
        return mutate.data(rng, seed, upto=1600)

    def check(self, case: dict[str, bytes]) -> str:
        """Read it as `predict` does; compare a success with pydicom's own reading."""
        ((name, content),) = case.items()
        path = self.path.with_name(name)
        path.write_bytes(content)
        try:
            radiograph = inputs.read(path, max_pixels=MAX_PIXELS)
        except (inputs.Skipped, inputs.Unreadable) as error:
            return refused(error)
        for note in radiograph.notes:
            if 'zzname' in note.lower():
                raise Wrong(f'a note names the patient: {note!r}')
        if radiograph.header is not None:
            if any('compressed pixels have' in note for note in radiograph.notes):
                return 'read, by its stream, with a note'  # pydicom goes by the tags
            return self._compare(radiograph.image, path)
        return 'a picture'

    def _compare(self, image, path):
        try:
            whole = pydicom.dcmread(path, force=True)
            if 'TransferSyntaxUID' not in whole.file_meta:
                implicit = whole.original_encoding[0]
                whole.file_meta.TransferSyntaxUID = (
                    uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
                )
            stored = stored_values(whole)
        except Exception as error:
            self._reread(error, path)
            return f'read, where pydicom says {type(error).__name__}'
        if image.shape != stored.shape[:2]:
            raise Wrong(f'shape {image.shape}, pydicom says {stored.shape}')
        if stored.ndim == 3:
            spread = int(np.ptp(stored.astype(int), axis=-1).max())
            if whole.PhotometricInterpretation == 'RGB' and spread > 8:
                raise Wrong(f'colours taken for grey: channels differ by {spread}')
            return 'read, grey in colour'
        expected, allowed = plain_display(whole, stored)
        if expected is None:
            return 'read, of the right shape'
        off = int(np.abs(image.astype(int) - expected).max())
        if off > allowed:
            raise Wrong(f'pixels differ from pydicom by up to {off}')
        return 'read, pixel for pixel as pydicom' + ' and PS3.3 C.11' * bool(allowed)

    def _reread(self, error, path):
        """pydicom fails on the whole file: it must be over tags that make no pixels."""
        with limits.BoundedFile(path) as file:
            ours, _ = dicom._parse(file, MAX_PIXELS)
        try:
            stored_values(ours)
        except Exception as again:
            raise Wrong(f'read, but pydicom says {type(again).__name__}: {again}') from error


def stored_values(whole: pydicom.Dataset) -> np.ndarray:
    """pydicom's decoding; JPEG by Pillow, which is not the decoder under test."""
    syntax = whole.file_meta.TransferSyntaxUID
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        return pixel_array(whole, decoding_plugin='pillow')
    if whole.SamplesPerPixel == 1:  # pydicom cuts off what is above BitsStored, wherever that is
        return pixel_array(whole, raw=True, correct_unused_bits=False)
    return whole.pixel_array


def plain_display(whole: pydicom.Dataset, stored: np.ndarray):
    """Display values by hand, uint8, and how far off by rounding the others may be.

    (None, 0) where tables, or tags that make no sense, leave more than one way.
    """
    bits, signed = int(whole.BitsStored), bool(whole.PixelRepresentation)
    allocated, high = int(whole.BitsAllocated), whole.get('HighBit')
    if high is not None and not isinstance(high, int):
        return None, 0
    syntax = whole.file_meta.TransferSyntaxUID
    native = not syntax.is_compressed or syntax in (uid.RLELossless, _DEFLATED)
    shift = (bits - 1 if high is None else high) + 1 - bits
    usual = whole.PhotometricInterpretation in ('MONOCHROME1', 'MONOCHROME2')
    if any(keyword in whole for keyword in _TABLES) or not usual or shift + bits > allocated:
        return None, 0
    if shift < 0 or (shift and not native):
        return None, 0
    values = (stored.astype(np.int64) >> shift) & ((1 << bits) - 1)
    if not native and not np.isin(stored.astype(np.int64) >> bits, (0, -1)).all():
        return None, 0
    if signed:
        values[values >= 1 << bits - 1] -= 1 << bits
    padding = np.zeros(values.shape, bool)
    if (pad := whole.get('PixelPaddingValue')) is not None:
        if not isinstance(pad, int) or shift:
            return None, 0
        pad &= 0xFFFF
        padding = values == (pad - (1 << 16) if signed and pad >> 15 else pad)
    if padding.all():
        return np.zeros(values.shape, np.uint8), 0
    try:
        slope, intercept, center, width = (_number(whole, keyword) for keyword in _NUMBERS)
    except (TypeError, ValueError, OverflowError):
        return None, 0
    function = whole.get('VOILUTFunction') or 'LINEAR'
    if function not in ('LINEAR', 'LINEAR_EXACT', 'SIGMOID') or (center is None) != (width is None):
        return None, 0
    if slope == 0:
        slope, intercept = None, None

    def rescaled(x):
        return x * (1.0 if slope is None else slope) + (intercept or 0.0)

    if width is not None:
        if width < 1:
            return None, 0
        unit = _window(rescaled(values), center, width, function)
    else:
        used = values[~padding]
        if bits <= 8:
            ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        else:
            ends = int(used.min()), int(used.max())
        low, high = sorted(map(rescaled, ends))
        unit = (rescaled(values) - low) / (high - low) if high > low else np.zeros(values.shape)
    if not np.isfinite(unit[~padding]).all():
        return None, 0
    deep = np.rint(np.clip(unit, 0, 1) * 65535)
    if whole.PhotometricInterpretation == 'MONOCHROME1':
        deep = 65535 - deep
    shown = np.floor(deep / 257 + 0.5).astype(np.uint8)
    shown[padding] = 0
    return shown, int(width is not None or slope is not None or intercept is not None)


_DEFLATED = uid.DeflatedExplicitVRLittleEndian
_NUMBERS = 'RescaleSlope', 'RescaleIntercept', 'WindowCenter', 'WindowWidth'


def _number(whole, keyword: str) -> float | None:
    """The first value of a tag; ValueError where it is far from what files hold."""
    value = whole.get(keyword)
    if value is None or value == '':
        return None
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0]
    number = float(value)
    if not (number == 0 or 1e-3 < abs(number) < 1e6):
        raise ValueError(keyword)
    return number


def _window(x: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, from 0 to 1."""
    if function == 'SIGMOID':
        return 1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    if function == 'LINEAR_EXACT':
        return (x - center) / width + 0.5
    if width == 1:
        return (x > center - 0.5).astype(float)
    return (x - (center - 0.5)) / (width - 1) + 0.5


MAKE = {'dicom': Dicom}
