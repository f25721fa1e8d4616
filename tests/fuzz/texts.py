"""Run-length texts and the two CSVs, against readers written a second time, in the plainest way."""

import csv
import io
import json
import pathlib

import numpy as np

from pneumojax.data import rle
from pneumojax.data.datasets import folder_table, siim
from pneumojax.data.files import inputs
from pneumojax.errors import UsageError
from tests.fuzz import mutate
from tests.fuzz.worker import Wrong, refused

_TOKENS = (
    '-1', ' -1', '0', '1', '-', '+5', '1e3', '1.0', '٣', '²', '１', '9' * 30, '4294967296',
    '9223372036854775807', '\t', '\u00a0', '\u3000', ',', '"', '\n', '\r\n', '0x10', '1_000', ' ',
)  # fmt: skip


def plain_decode(text: str, shape: tuple[int, int]) -> np.ndarray | None:
    """The mask, pixel by pixel; None where the text is not one. Kaggle's definition by hand."""
    words = text.split()
    if words == ['-1']:
        return np.zeros(shape, np.uint8)
    if not words or len(words) % 2 or not all(set(word) <= set('0123456789') for word in words):
        return None
    mask, at, total = np.zeros(shape, np.uint8), 0, shape[0] * shape[1]
    for gap, length in zip(words[::2], words[1::2], strict=True):
        at += int(gap)
        if not int(length) or at + int(length) > total:
            return None
        for pixel in range(at, at + int(length)):
            mask[pixel % shape[0], pixel // shape[0]] = 1
        at += int(length)
    return mask


class Rle:
    """A text and a shape."""

    def __init__(self, folder: pathlib.Path):
        del folder
        rng = np.random.default_rng(0)
        self.shapes = [(1, 1), (7, 5), (5, 7), (32, 32), (1, 200), (64, 33)]
        masks = [(rng.random(shape) > share) for shape in self.shapes for share in (0.2, 0.7, 0.95)]
        self.seeds = [' '.join(_runs(mask)) or '-1' for mask in masks]

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """A damaged text, and the shape of another as often as its own."""
        which = int(rng.integers(len(self.seeds)))
        shape = self.shapes[which // 3 if rng.integers(2) else int(rng.integers(len(self.shapes)))]
        text = mutate.text(rng, self.seeds[which], _TOKENS)
        return {'text': text.encode(), 'shape': json.dumps(shape).encode()}

    def check(self, case: dict[str, bytes]) -> str:
        """Decode, and compare; then encode what was decoded."""
        text, shape = case['text'].decode(), tuple(json.loads(case['shape']))
        expected = plain_decode(text, shape)
        try:
            mask = rle.decode(text, shape)
        except ValueError as error:
            if expected is not None:
                raise Wrong(f'refused what is sound: {error}') from error
            return refused(error)
        if expected is None:
            raise Wrong('decoded what is none')
        if not np.array_equal(mask, expected):
            raise Wrong(f'{mask.sum()} pixels instead of {expected.sum()}')
        if not np.array_equal(rle.decode(rle.encode(mask), shape), expected):
            raise Wrong('encoded otherwise than decoded')
        return 'decoded as by hand'


def _runs(mask):
    """Kaggle's text of a mask by hand."""
    found, last, run = [], 0, 0
    flat = [*mask.T.ravel(), False]
    for at, inside in enumerate(flat):
        if inside:
            run += 1
        elif run:
            found += [str(at - run - last), str(run)]
            last, run = at, 0
    return found


class Csv:
    """A data set of five (empty) image files and a CSV about them."""

    name, column, optional = '', '', False

    def __init__(self, folder: pathlib.Path):
        self.root = folder / 'root'
        self.root.mkdir()
        self.ids = ['im1', 'im2', 'im3', '4', '5']
        for name in self.ids:
            (self.root / f'{name}.dcm').touch()

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """The damaged table, as text or as bytes."""
        seed = self.seeds[int(rng.integers(len(self.seeds)))]
        if rng.integers(4):
            return {self.name: mutate.text(rng, seed, (*_TOKENS, *self.tokens)).encode('utf-8')}
        return {self.name: mutate.data(rng, seed.encode())}

    def check(self, case: dict[str, bytes]) -> str:
        """Find the data set; compare what is said of each image with what `plain` reads."""
        (self.root / self.name).write_bytes(case[self.name])
        try:
            found = self.find()
        except UsageError as error:
            return refused(error)
        cells = self.plain(case[self.name])
        if cells is not None:
            return self.compare(found, cells)
        if b'"' in case[self.name]:
            return 'read, with quotes'
        header = csv.reader(io.StringIO(case[self.name].decode('utf-8-sig')))
        if self.optional and _letters(self.column) not in map(_letters, next(header, [])):
            return 'read, without that column'
        raise Wrong('read what is no such table')

    def find(self) -> siim.Listing:
        """The code under test."""
        return siim.find(self.root)

    def plain(self, content: bytes) -> dict[str, set[str]] | None:
        """ImageId -> cells, by hand; None where the file is beyond this simple reader."""
        try:
            text = content.decode('utf-8-sig')
        except UnicodeDecodeError:
            return None
        if '"' in text:
            return None
        lines = text.replace('\r\n', '\n').replace('\r', '\n').split('\n')
        rows = [[cell.strip() for cell in line.split(',')] for line in lines]
        rows = [row for row in rows if any(row)]
        header = [_letters(name) for name in rows[0]] if rows else []
        key, column = _letters('ImageId'), _letters(self.column)
        if header.count(key) != 1 or header.count(column) != 1:
            return None
        cells = {}
        for row in rows[1:]:
            if len(row) <= max(header.index(key), header.index(column)) or any(row[len(header) :]):
                return None
            cells.setdefault(row[header.index(key)], set()).add(row[header.index(column)])
        return cells


def _letters(name):
    """Case, spaces and punctuation make no difference in the name of a column."""
    return ''.join(c for c in name.casefold() if c.isalpha() or c.isdigit() or c.isnumeric())


class Masks(Csv):
    """stage_2_train.csv: every mask that is in the file must be whole."""

    name, column = 'stage_2_train.csv', 'EncodedPixels'
    tokens = ('im1', 'im2', 'ImageId', 'EncodedPixels', 'im1,3 4\n', '"im2"')
    seeds = (
        'ImageId,EncodedPixels\nim1,3 4 5 6\nim1,100 7\nim2,-1\nim3,-1\n4,1 2 3 4\n5,-1\n',
        'ImageId, EncodedPixels\r\nim1, -1\r\nim2, 10 10 10 10\r\nim3, 5 5\r\n4, -1\r\n5,0 1\r\n',
        'other,EncodedPixels,ImageId\nx,"1 2","im1"\ny,-1,im2\n,-1,im3\n,7 7,4\n"",7 9,5\n',
    )

    def compare(self, found: siim.Listing, cells: dict[str, set[str]]) -> str:
        """Each image's mask."""
        for example in found.examples:
            union = np.zeros((60, 50), np.uint8)
            for text in cells.get(example.image_id, ()):
                mask = plain_decode(text, (60, 50))
                if mask is None and max(map(int, text.split())) < 3000:
                    raise Wrong(f'{text!r} was taken for a mask')
                union |= np.zeros_like(union) if mask is None else mask
            try:
                ours = rle.decode_all(example.rles, (60, 50))
            except ValueError:
                continue
            if not np.array_equal(ours, union):
                raise Wrong(f'{example.image_id}: {ours.sum()} pixels instead of {union.sum()}')
        missing = cells.keys() & set(self.ids) - {e.image_id for e in found.examples}
        if missing:
            raise Wrong(f'rows about {missing} were lost')
        return 'every mask is whole'


class Patients(Csv):
    """patients.csv: whose image it is must be right, or the split leaks."""

    name, column = 'patients.csv', 'PatientId'
    tokens = ('im1', 'ZZName', 'PatientId', 'ImageId', 'im1,ZZName2\n', '"im2"')
    seeds = (
        'ImageId,PatientId\nim1,ZZName1\nim2,ZZName1\nim3,ZZName2\n4,ZZName3\n5,ZZName3\n',
        '\ufeffPatientId,ImageId\r\nZZName1,im1\r\nZZName2,im2\r\nZZName2,im3\r\n7,4\r\n7,5\r\n',
        'ImageId,x,PatientId\n"im1",1,"ZZName,1"\nim2,,ZZName2\nim3,3,a\n4,"",a\n5,,ZZName2\n',
    )

    def __init__(self, folder: pathlib.Path):
        super().__init__(folder)
        text = 'ImageId,EncodedPixels\n' + ''.join(f'{name},-1\n' for name in self.ids)
        (self.root / 'stage_2_train.csv').write_text(text)

    def find(self) -> siim.Listing:
        """The code under test."""
        return siim.find(self.root, self.root / self.name)

    def compare(self, found: siim.Listing, cells: dict[str, set[str]]) -> str:
        """Each image's patient."""
        for example in found.examples:
            if {example.patient_id} != cells[example.image_id]:
                raise Wrong(f'{example.image_id}: another patient than the file says')
        return 'every patient is right'


class Table(Csv):
    """table.csv of your own images: patient, label and fold of each row."""

    name, column, optional = 'table.csv', 'PatientId', True
    tokens = ('im1', 'ZZName', 'Pneumothorax', 'split', 'fold', 'train', 'val', 'test', 'im1,a,1\n')
    seeds = (
        'ImageId,PatientId,Pneumothorax\nim1,ZZName1,1\nim2,ZZName1,0\nim3,ZZName2,\n4,ZZName3,0\n',
        'ImageId,PatientId,split\r\nim1,a,train\r\nim2,a,train\r\nim3,b,val\r\n4,c,test\r\n',
        'fold,PatientId,ImageId\n0,a,im1\n1,b,im2\n2,ZZName2,im3\n3,b,4\n0,"a",5\n',
    )

    def find(self) -> dict[str, folder_table.TableRow] | None:
        """The code under test."""
        return folder_table.read(str(self.root), '', 0, 4)

    def compare(self, found, cells: dict[str, set[str]]) -> str:
        """Each row's patient."""
        stems = {}
        for name, patients in cells.items():
            stems.setdefault(inputs.stem(name), set()).update(patients)
        if found.keys() != stems.keys():
            raise Wrong(f'rows of {sorted(found)} instead of {sorted(stems)}')
        for name, row in found.items():
            if {row.patient} != stems[name]:
                raise Wrong(f'{name}: another patient than the file says')
        return 'every patient is right'


MAKE = {'rle': Rle, 'masks_csv': Masks, 'patients_csv': Patients, 'table': Table}
