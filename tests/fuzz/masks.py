"""DICOM Segmentations as masks, and the names of a folder's files."""

import io
import itertools
import pathlib
import unicodedata

import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pneumojax.data.datasets import mask_files
from pneumojax.data.files import inputs
from tests.fuzz import dicom_seeds, mutate
from tests.fuzz.worker import Wrong, refused

_SOURCE = '1.2.3'  # SOPInstanceUID of the image
_PNEUMOTHORAX = Code('36118008', 'SCT', 'Pneumothorax')
_LUNG = Code('39607008', 'SCT', 'Lung')
_TAGS = {
    'Rows': ('US', (0, 1, 40, 41, 65535)), 'Columns': ('US', (0, 1, 30, 31, 65535)),
    'NumberOfFrames': ('IS', ('0', '1', '2', '3', '-1', '100000', '')),
    'BitsAllocated': ('US', (0, 1, 8, 16)), 'BitsStored': ('US', (0, 1, 8, 16)),
    'HighBit': ('US', (0, 1, 7, 15)), 'MaximumFractionalValue': ('US', (0, 1, 255)),
    'SegmentationType': ('CS', ('BINARY', 'FRACTIONAL', 'LABELMAP', '')),
    'SegmentationFractionalType': ('CS', ('PROBABILITY', 'OCCUPANCY', '')),
    'SegmentNumber': ('US', (0, 1, 2, 7)), 'ReferencedSegmentNumber': ('US', (0, 1, 2, 7)),
    'SegmentLabel': ('LO', ('', 'Pneumothorax', 'no pneumothorax', dicom_seeds.NAME, 'x' * 200)),
    'CodeValue': ('SH', ('36118008', '39607008', '', 'x')),
    'CodingSchemeDesignator': ('SH', ('SCT', 'SRT', '99LOCAL', '')),
    'CodeMeaning': ('LO', ('Pneumothorax', 'Lung', '')),
    'ReferencedSOPInstanceUID': ('UI', (_SOURCE, '1.2.9', '', 'x')),
    'SliceThickness': ('DS', ('', '1', 'nan')), 'PixelSpacing': ('DS', ('', ['0.2', '0.2'])),
    'SOPClassUID': ('UI', ('', '1.2.840.10008.5.1.4.1.1.7')),
}  # fmt: skip


class Segmentation:
    """A Segmentation of one image: of one segment or two, binary or fractional."""

    def __init__(self, folder: pathlib.Path):
        self.path = folder / 'mask.dcm'
        self.seeds = [*dicom_seeds.segmentations().values(), *two_segments()]

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """The file damaged by the byte, by the tag, or not at all."""
        seed = self.seeds[int(rng.integers(len(self.seeds)))]
        match rng.integers(8):
            case 0:
                return {'mask.dcm': seed}
            case 1 | 2:
                return {'mask.dcm': mutate.data(rng, seed, self.seeds)}
            case _:
                return {'mask.dcm': _with_tags(rng, seed)}

    def check(self, case: dict[str, bytes]) -> str:
        """Read it; the mask must be the frames of the pneumothorax, as pydicom reads them."""
        self.path.write_bytes(case['mask.dcm'])
        try:
            mask_files.sources(self.path)
            mask, _ = mask_files.read_segmentation(self.path, _SOURCE)
        except mask_files.BadMask as error:
            return refused(error)
        if mask.dtype != np.uint8 or not set(np.unique(mask)) <= {0, 1}:
            raise Wrong(f'no mask: {mask.dtype}')
        try:
            segments = frames_by_segment(pydicom.dcmread(self.path))
        except Exception as error:
            return f'read, where pydicom says {type(error).__name__}'
        for choice in allowed(segments):
            if np.array_equal(mask, union(choice, mask.shape)):
                return 'read, frame for frame as pydicom'
        raise Wrong(f'{mask.sum()} pixels are of no segment that may be meant')


def two_segments() -> list[bytes]:
    """A pneumothorax and a lung in one file, named in ways that invite mistakes."""
    import highdicom

    header = dicom_seeds.dataset(
        np.zeros((40, 30), np.uint8), 8, pydicom.uid.ExplicitVRLittleEndian, StudyDate='20200101',
        StudyTime='101010', AccessionNumber='', StudyID='', ReferringPhysicianName='',
        PatientSex='O', SeriesNumber=1, InstanceNumber=1,
    )  # fmt: skip
    pixels = np.zeros((1, 40, 30, 2), np.uint8)
    pixels[0, 10:20, 5:25, 0] = pixels[0, 15:35, 2:12, 1] = 1
    names = [
        (('Pneumothorax', _PNEUMOTHORAX), ('Lung, no pneumothorax', _LUNG)),
        (('A', _PNEUMOTHORAX), ('B', _LUNG)),
        (('Pneumothorax', _LUNG), ('x', _LUNG)),
        (('left', _PNEUMOTHORAX), ('right', _PNEUMOTHORAX)),
    ]
    made = []
    for pair in names:
        described = [
            highdicom.seg.SegmentDescription(
                n + 1, label, codes.SCT.MorphologicallyAbnormalStructure, code, 'MANUAL'
            )
            for n, (label, code) in enumerate(pair)
        ]
        for omit in (True, False):
            segmentation = highdicom.seg.Segmentation(
                [header], pixels, 'BINARY', described, '1.2.8', 1, '1.2.8.1', 1, 'm', 'm', '1', '1',
                omit_empty_frames=omit,
            )  # fmt: skip
            made.append(dicom_seeds.as_bytes(segmentation))
    return made


def _with_tags(rng: np.random.Generator, seed: bytes) -> bytes:
    """Some elements, at any depth, with other values, or gone."""
    made = pydicom.dcmread(io.BytesIO(seed))
    for _ in range(int(rng.integers(1, 4))):
        keyword = str(rng.choice(list(_TAGS)))
        vr, values = _TAGS[keyword]
        holders = [
            d for d in [made, *items_below(made)] if keyword in d or (d is made and vr == 'US')
        ]
        if not holders:
            continue
        holder = holders[int(rng.integers(len(holders)))]
        if rng.integers(4) == 0:
            holder.pop(keyword, None)
            continue
        value = values[int(rng.integers(len(values)))]
        tag = pydicom.datadict.tag_for_keyword(keyword)
        ignore = pydicom.config.IGNORE
        holder[tag] = pydicom.DataElement(tag, vr, value, validation_mode=ignore)
    buffer = io.BytesIO()
    try:
        made.save_as(buffer)
    except Exception:
        return mutate.data(rng, seed)
    return buffer.getvalue()


def items_below(dataset: pydicom.Dataset):
    """All data sets in its sequences, at any depth."""
    for element in dataset:
        if element.VR == 'SQ':
            for item in element.value or ():
                yield item
                yield from items_below(item)


def frames_by_segment(dataset: pydicom.Dataset) -> dict[int, tuple[bool, list[np.ndarray]]]:
    """Segment number -> whether its code is a pneumothorax, and its frames about the image."""
    pixels = dataset.pixel_array
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    if dataset.SegmentationType == 'FRACTIONAL':
        pixels = pixels >= 0.5 * dataset.MaximumFractionalValue
    found: dict[int, tuple[bool, list[np.ndarray]]] = {}
    for segment in dataset.SegmentSequence:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        code = kind.get('CodeValue'), kind.get('CodingSchemeDesignator')
        coded = code == ('36118008', 'SCT') or kind.get('CodeMeaning') == 'Pneumothorax'
        found[int(segment.SegmentNumber)] = coded, []
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame, own in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        groups = pydicom.Dataset()
        groups.update(shared)
        groups.update(own)
        sources = [
            item.ReferencedSOPInstanceUID
            for derivation in groups.get('DerivationImageSequence', ())
            for item in derivation.get('SourceImageSequence', ())
        ]
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if not sources or _SOURCE in sources:
            found[number][1].append(frame > 0)
    return found


def allowed(segments: dict[int, tuple[bool, list[np.ndarray]]]):
    """Frames that may be the mask: those coded so; where none is, those of any segments."""
    coded = [frames for is_coded, frames in segments.values() if is_coded]
    if coded:
        yield [*itertools.chain(*coded)]
        return
    every = [frames for _, frames in segments.values()]
    for chosen in range(1, 1 << min(len(every), 6)):
        yield [*itertools.chain(*(frames for n, frames in enumerate(every) if chosen >> n & 1))]


def union(frames: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """uint8: any of the frames."""
    mask = np.zeros(shape, bool)
    for frame in frames:
        mask |= frame
    return mask.astype(np.uint8)


_PARTS = (
    'a', 'A', 'image', 'ä', 'a\u0308', 'é', 'e\u0301', '.', '..', '._', '-', ' ', '1', '2', '-2',
    '-3', '\u202e', '\n', '\t', '=', '+', '@', 'ß', 'ss', 'İ', 'ﬁ', '中', 'CON', '\x7f', 'x' * 130,
    '\udcff', '%', '%s', '{0}', "'", '"', '<b>', '&', '\\', '$HOME', '~',
)  # fmt: skip
_SUFFIXES = ('.dcm', '.DCM', '.png', '.jpg', '.jpeg', '', '.dcm.dcm', '.840', '.ima', '.csv')


class Names:
    """File names of any kind: what is made of them must be safe, different and always the same."""

    def __init__(self, folder: pathlib.Path):
        self.root = folder

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """A few paths; many differ in little."""
        paths = []
        for _ in range(int(rng.integers(1, 12))):
            name = ''.join(rng.choice(_PARTS, int(rng.integers(1, 4)))) + str(rng.choice(_SUFFIXES))
            folder = ''.join(rng.choice(['', 'x/', 'y/', 'study1/', 'STUDY1/']))
            if name not in ('.', '..') and len(os_bytes(name)) <= 255:
                paths.append(folder + name)
        paths = list(dict.fromkeys(paths)) or ['a.dcm']
        return {'names': '\0'.join(paths).encode('utf-8', 'surrogateescape')}

    def check(self, case: dict[str, bytes]) -> str:
        """Name the outputs; then again, with some of the names given."""
        files = case['names'].decode('utf-8', 'surrogateescape').split('\0')
        names = inputs.image_ids(files)
        if list(names) != list(dict.fromkeys(files)):
            raise Wrong('a file without a name')
        folded = [unicodedata.normalize('NFC', name).casefold() for name in names.values()]
        if len(set(folded)) != len(folded):
            raise Wrong('two outputs of one name')
        for file, name in names.items():
            if not inputs.is_safe(name) or len(os_bytes(name)) > 200:
                raise Wrong(f'{name!r} is not safe')
            printed = inputs.printable(file)
            printed.encode()
            inputs.name_note(file, name)
        half = {file: name for n, (file, name) in enumerate(names.items()) if n % 2}
        again = inputs.image_ids(files, half)
        if any(again[file] != name for file, name in half.items()):
            raise Wrong('a name that was given changed')
        if len({name.casefold() for name in again.values()}) != len(again):
            raise Wrong('two outputs of one name when continued')
        return 'safe and different'


def os_bytes(name: str) -> bytes:
    """As the file system has it."""
    return name.encode('utf-8', 'surrogateescape')


MAKE = {'segmentation': Segmentation, 'names': Names}
