"""A data set in the layout of Kaggle's SIIM-ACR competition: images, their masks, their patients.

DICOM files lie anywhere below the root, nested or flat; a file's stem is its ImageId. The CSV
`train-rle.csv` or `stage_2_train.csv` has one row for each mask, several for some images, and a row
with `-1` for an image without one. Kaggle's first file has a space before each second cell.
"""

import dataclasses
import os
from collections.abc import Iterator

from pneumojax.data import rle
from pneumojax.data.datasets import tables
from pneumojax.data.datasets.example import Example
from pneumojax.data.files import inputs
from pneumojax.errors import UsageError
from pneumojax.system.progress import log

# The later file comes first: it has the rows of the earlier one and of the stage-1 test set.
ANNOTATIONS = ('stage_2_train.csv', 'train-rle.csv')
DEMO = (
    'without a data set, run the demo, which draws its own: '
    'python -m pneumojax.main --config=configs/demo.py'
)


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found below a root.

    Attributes:
      examples: images with rows, sorted by ImageId.
      images_without_row: ImageIds of files that are not in the CSV and so not in `examples`.
      rows_without_image: ImageIds in the CSV that have no file and so are not in `examples`.
      annotations: path of the CSV.
    """

    examples: tuple[Example, ...]
    images_without_row: tuple[str, ...]
    rows_without_image: tuple[str, ...]
    annotations: str


def find(root: str | os.PathLike, patients: str | os.PathLike | None = None) -> Listing:
    """Lists the labelled images below a folder. Only the CSVs are read.

    Args:
      root: folder in Kaggle's layout. The CSV is in it or one level below; the nearer one is used,
        and of two in one folder `stage_2_train.csv`.
      patients: CSV with the columns `ImageId` and `PatientId`; without it each image counts as a
        patient of its own.

    Returns:
      The images, in an order that depends only on their ImageIds.

    Raises:
      UsageError: there is no usable data set; names the file, line or ImageId at fault.
    """
    looked_for = f'DICOM files anywhere below it and {" or ".join(reversed(ANNOTATIONS))} in it'
    if not root or not os.path.isdir(root):
        raise UsageError(
            f'config.data.root: there is no folder {os.fspath(root or "")!r}; expected a folder '
            f'with {looked_for}; {DEMO}'
        )
    root = os.fspath(root)
    images = _find_images(root)
    if not images:
        raise UsageError(
            f'config.data.root: no .dcm file below {root!r}; expected {looked_for}; {DEMO}'
        )
    annotations = find_annotations(root)
    if annotations is None:
        raise UsageError(
            f'config.data.root: {len(images)} DICOM files below {root!r}, but neither '
            f'{" nor ".join(reversed(ANNOTATIONS))} in it or one level below; put the CSV with the '
            f'masks there; {DEMO}'
        )
    masks = _read_masks(annotations)
    usable = sorted(images.keys() & masks.keys())
    without_row = tuple(sorted(images.keys() - masks.keys()))
    without_image = tuple(sorted(masks.keys() - images.keys()))
    if not usable:
        raise UsageError(
            f'{annotations}: none of its {len(masks)} ImageIds ({without_image[0]}, ...) is among '
            f'the {len(images)} files below {root!r} ({without_row[0]}.dcm, ...); use the CSV that '
            'belongs to these images'
        )
    if without_row:
        log.warning(
            '%d images have no row in %s and are left out; the first is %s',
            len(without_row), annotations, without_row[0],
        )  # fmt: skip
    if without_image:
        log.warning(
            '%d ImageIds in %s have no DICOM file and are left out; the first is %s',
            len(without_image), annotations, without_image[0],
        )  # fmt: skip
    owners = {name: name for name in usable} if not patients else read_patients(patients, usable)
    examples = tuple(Example(name, images[name], masks[name], owners[name]) for name in usable)
    return Listing(examples, without_row, without_image, annotations)


def _find_images(root: str) -> dict[str, str]:
    """Maps ImageId to path for each DICOM file below the root; links to folders are followed."""
    images: dict[str, str] = {}
    seen = set()
    unlisted = inputs.Unlisted(root, 'config.data.root')
    for folder, folders, names in os.walk(root, followlinks=True, onerror=unlisted.add):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(names):
            # macOS archives contain a `._name.dcm` for each file, which is not an image.
            if not name.lower().endswith('.dcm') or name.startswith('.'):
                continue
            stem = inputs.stem(name)
            path = os.path.join(folder, name)
            if stem in images:
                raise UsageError(
                    f'ImageId {stem} is found twice: {images[stem]} and {path}; remove one of them'
                )
            images[stem] = path
    unlisted.warn()
    return images


def find_annotations(root: str) -> str | None:
    """Path of the CSV with the masks, in a folder or one level below it; None if there is none."""
    below = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    for folders in ([root], below):
        found = [
            path
            for name in ANNOTATIONS
            for folder in folders
            if os.path.isfile(path := os.path.join(folder, name))
        ]
        if len(found) > 1:
            log.info('several CSVs with masks; taking %s, not %s', found[0], found[1:])
        if found:
            return found[0]
    return None


def _read_masks(path: str) -> dict[str, tuple[str, ...]]:
    """Maps ImageId to well-formed run-length texts; to an empty tuple for `-1`."""
    texts, empty = {}, set()
    for line, image_id, text in _read_rows(path, 'EncodedPixels'):
        try:
            runs = rle.parse(text)
        except ValueError as error:
            raise UsageError(
                f'{path}, line {line}: ImageId {image_id}: {error}; fix or remove the row'
            ) from error
        masks = texts.setdefault(image_id, [])
        if len(runs):
            masks.append(text)
        else:
            empty.add(image_id)
    contradictory = sorted(image_id for image_id in empty if texts[image_id])
    if contradictory:
        log.warning(
            '%d ImageIds in %s have both a mask and %s; the mask is used; the first is %s',
            len(contradictory), path, rle.EMPTY, contradictory[0],
        )  # fmt: skip
    _warn_if_cut(path)
    return {image_id: tuple(masks) for image_id, masks in texts.items()}


def read_patients(path: str | os.PathLike, needed: list[str]) -> dict[str, str]:
    """Maps ImageId to patient for all images in `needed`. Errors never name a patient."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UsageError(
            f'config.data.patients: there is no file {path!r}; expected a CSV with the columns '
            'ImageId and PatientId, or leave the key empty'
        )
    owners = {}
    for line, image_id, patient in _read_rows(path, 'PatientId'):
        if not patient:
            raise UsageError(
                f'{path}, line {line}: ImageId {image_id} has no PatientId; fill it in'
            )
        if owners.setdefault(image_id, patient) != patient:
            raise UsageError(
                f'{path}, line {line}: ImageId {image_id} has another patient in an earlier line; '
                'remove one of the two'
            )
    missing = [image_id for image_id in needed if image_id not in owners]
    if missing:
        raise UsageError(
            f'{path}: {len(missing)} of {len(needed)} images have no row, the first is ImageId '
            f'{missing[0]}; add them, or leave config.data.patients empty (each image then counts '
            'as a patient of its own)'
        )
    return owners


def _read_rows(path: str, column: str) -> Iterator[tuple[int, str, str]]:
    """Yields line number, ImageId and the named column of each row."""
    for line, cells in tables.read(path, ('ImageId', column)):
        yield line, cells['ImageId'], cells[column]


def _warn_if_cut(path: str) -> None:
    """Warns if a file does not end with a line break: one cut inside a number still parses."""
    with open(path, 'rb') as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) not in b'\r\n':
            log.warning(
                '%s does not end with a line break; if it was cut short, so is its last row', path
            )
