"""A folder of your own images and masks.

Images (DICOM or pictures, recognised by content) may be anywhere below the root. The mask of an
image is `masks/NAME.png` of the same name, or a DICOM Segmentation anywhere that refers to it. An
image is a negative only if that is stated, by an all-black or empty mask or by 0 in the table's
column Pneumothorax. An image without such a statement is left out and counted, never assumed
negative.

The table is a CSV `ImageId[,PatientId][,Pneumothorax][,split][,fold]`; if there is one, only images
in it are used.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pneumojax.data import rle
from pneumojax.data.datasets import folder_table, mask_files, siim
from pneumojax.data.datasets.example import Example
from pneumojax.data.datasets.folder_table import TableRow
from pneumojax.data.files import dicom, exif, headers, inputs
from pneumojax.errors import UsageError
from pneumojax.system import limits
from pneumojax.system.parallel import Item, Result, cores, ordered_map
from pneumojax.system.progress import bar, log

MASKS = 'masks'  # below the root, unless data.masks names another folder
EXPECTED = (
    "expected images with masks (docs/how-to/own_images.md), or Kaggle's layout, which is DICOM "
    f'files and {" or ".join(reversed(siim.ANNOTATIONS))}; {siim.DEMO}'
)


class Image(NamedTuple):
    """A radiograph's file."""

    path: str
    uid: str  # SOPInstanceUID of a DICOM file
    patient: str  # PatientID of a DICOM file


class Mask(NamedTuple):
    """The file with an image's mask."""

    path: str
    uid: str  # SOPInstanceUID of the image in a Segmentation; '' for a PNG file


class Files(NamedTuple):
    """The files found."""

    images: dict[str, Image]  # by ImageId
    pngs: dict[str, str]  # name to path, in the folder of masks
    segmentations: list[str]


def find(
    root: str, masks: str = '', table: str = '', patients: str = '', *, fold: int = 0,
    num_folds: int = 5, with_test: bool = False,
) -> tuple[Example, ...]:  # fmt: skip
    """Lists the labelled images below a folder. Headers and masks are read, but no image.

    Args:
      root: the folder.
      masks: folder of the PNG masks; '' for `masks` below the root.
      table: the CSV; '' for `table.csv` below the root, if there is one.
      patients: CSV with the columns ImageId and PatientId; '' to use the table's PatientId, or else
        that of the DICOM files. An image without any is a patient of its own.
      fold: the fold in the table's column `fold` to hold out; 0 if there is a column `split`.
      num_folds: how many folds that column holds.
      with_test: also those that the table's column `split` keeps for testing.

    Returns:
      The examples, sorted by ImageId.

    Raises:
      UsageError: nothing is usable, or two statements contradict each other.
    """
    rows = folder_table.read(root, table, fold, num_folds)
    files = list_files(root, masks)
    if not files.images:
        raise UsageError(f'config.data.root: no DICOM file or picture below {root!r}; {EXPECTED}')
    found = _pair(files)
    if not found and not any(row.positive is False for row in (rows or {}).values()):
        raise UsageError(
            f'config.data.root: {len(files.images)} images below {root!r}, but no mask of any of '
            f'them{_example_names(files)}; {EXPECTED}'
        )
    names = _chosen(files.images, found, rows, with_test)
    owners = _owners(names, files.images, rows, patients)
    drawn = _read_masks({name: found[name] for name in names if name in found}, files.images)
    examples = tuple(
        Example(
            name,
            files.images[name].path,
            drawn[name].rles if name in drawn else (),
            owners[name],
            drawn[name].shape if name in drawn else None,
            '' if rows is None else rows[name].side,
        )
        for name in names
    )
    for example in examples:
        _check_row(example, None if rows is None else rows[example.image_id])
    log.info(
        '%d of your own images in %s, %d of them with a mask that is not empty',
        len(examples), root, sum(e.positive for e in examples),
    )  # fmt: skip
    return examples


# --- files -------------------------------------------------------------------------------------


def list_files(root: str, masks: str = '') -> Files:
    """Finds the files below a folder, arguments as for `find`. UsageError if there is none."""
    if not os.path.isdir(root):
        raise UsageError(f'config.data.root: there is no folder {root!r}; {EXPECTED}')
    folder = masks or os.path.join(root, MASKS)
    if masks and not os.path.isdir(masks):
        raise UsageError(
            f'config.data.masks: there is no folder {masks!r}; name the folder of the PNG masks'
        )
    images: dict[str, Image] = {}
    known: dict[str, str] = {}  # SOPInstanceUID to path
    segmentations, others = [], []
    paths = [os.path.join(root, name) for name in inputs.find(root, folder, 'config.data.root')]
    for path, look in _each(_look, paths, 'look at images'):
        name = inputs.stem(path)
        if look == 'segmentation':
            segmentations.append(path)
        elif isinstance(look, str):
            others += [(path, look)] * bool(look)
        elif name in images:
            raise UsageError(
                f'ImageId {name} is found twice: {images[name].path} and {path}; names must be '
                f'unique{_forms(path, images[name].path)}, so rename or remove one of them'
            )
        elif look.uid and known.setdefault(look.uid, path) != path:
            raise UsageError(
                f'{known[look.uid]} and {path} are the same image (SOPInstanceUID); remove one'
            )
        else:
            images[name] = look
    _warn(others, '%d DICOM files below the root are not radiographs and are left out')
    pngs: dict[str, str] = {}
    unknown = []
    inside = inputs.find(folder, None, 'config.data.masks') if os.path.isdir(folder) else []
    for path, look in _each(
        _look, [os.path.join(folder, name) for name in inside], 'look at masks'
    ):
        name = inputs.stem(path)
        if look == 'segmentation':
            segmentations.append(path)
        elif look == '' and inputs.is_system_file(path):
            continue
        elif not isinstance(look, Image) or look.uid:
            unknown.append((path, look if isinstance(look, str) else 'a DICOM image, not a mask'))
        elif name in pngs:
            raise UsageError(
                f'two masks are called {name}: {pngs[name]} and {path}; names must be unique'
                f'{_forms(path, pngs[name])}, so remove one'
            )
        else:
            pngs[name] = path
    _warn(unknown, '%d files in the folder of masks are not masks and are left out')
    return Files(images, pngs, segmentations)


def _look(path: str) -> Image | str:
    """An image, or 'segmentation', or what else the file is; '' for files of no interest."""
    file_type = inputs.file_type(path)
    if file_type != 'dicom':
        return Image(path, '', '') if file_type else ''
    # Any exception of pydicom's means that the file is damaged.
    try:
        with limits.BoundedFile(path) as file:
            dicom.check(file)
            header = headers.read(file)
            if mask_files.is_segmentation(header):
                return 'segmentation'
            other = headers.why_not_radiograph(header) or dicom.why_not_grey(file, header)
    except Exception as error:
        return f'damaged or unusual ({type(error).__name__})'
    uid, patient = headers.text(header, 'SOPInstanceUID'), headers.text(header, 'PatientID')
    return other or Image(path, uid, unicodedata.normalize('NFC', patient))


def _pair(files: Files) -> dict[str, Mask]:
    """Maps ImageId to mask for the images that have one."""
    found = {name: Mask(path, '') for name, path in files.pngs.items() if name in files.images}
    lost = [(path, '') for name, path in files.pngs.items() if name not in files.images]
    _warn(lost, '%d masks have no image of the same name and are left out')
    by_uid = {image.uid: name for name, image in files.images.items() if image.uid}
    strangers = []
    for path, uids in _each(_sources, files.segmentations, 'look at segmentations'):
        known = sorted(uids & by_uid.keys())
        if not known:
            strangers.append((path, 'it refers to none of their SOPInstanceUIDs'))
        for uid in known:
            mask, name = Mask(path, uid), by_uid[uid]
            if found.setdefault(name, mask) != mask:
                raise UsageError(
                    f'ImageId {name} has two masks: {found[name].path} and {path}; remove one '
                    'of them'
                )
    _warn(strangers, '%d DICOM Segmentations belong to none of the images and are left out')
    return found


def _sources(path: str) -> set[str]:
    try:
        return mask_files.sources(path)
    except mask_files.BadMask as error:
        raise UsageError(f'{path}: {error}') from error


class Drawn(NamedTuple):
    """A mask that was read."""

    rles: tuple[str, ...]
    shape: tuple[int, int]
    share: float  # fraction of the pixels inside
    sure: bool  # False for a single segment that is not named pneumothorax
    values: str  # see `picture_files.Mask`
    turned_alone: bool  # the EXIF orientation is not that of the image


def _read_masks(masks: Mapping[str, Mask], images: Mapping[str, Image]) -> dict[str, Drawn]:
    drawn = dict(_each(lambda name: _draw(name, masks[name], images[name]), masks, 'read masks'))

    def warn(doubtful: Callable[[Drawn], bool], message: str, reason: str = '') -> None:
        items = [(masks[n].path, reason and reason.format(d)) for n, d in drawn.items()
                 if doubtful(d)]  # fmt: skip
        _warn(items, message)

    warn(
        lambda d: d.share > 0.5,
        '%d masks cover more than half of their image (are black and white swapped?)',
        '{0.share:.0%}',
    )
    warn(
        lambda d: not d.sure,
        '%d DICOM Segmentations have a single segment that is not named pneumothorax; it is used '
        'as one',
    )
    warn(
        lambda d: d.values == 'soft',
        '%d masks have soft edges (many greys up to white); what is at least half as bright as '
        'white is inside',
    )
    warn(
        lambda d: d.values == 'labels',
        '%d masks hold several values besides black, as labels do; all of them are inside',
    )
    warn(
        lambda d: d.turned_alone,
        '%d masks state another EXIF orientation than their image; both are read as viewers show '
        'them, so check that they fit',
    )
    return drawn


def _draw(name: str, mask: Mask, image: Image) -> Drawn:
    sure, values, turned_alone = True, '', False
    try:
        if mask.uid:
            pixels, sure = mask_files.read_segmentation(mask.path, mask.uid)
        else:
            pixels, orientation, values = mask_files.read_png(mask.path)
            turned_alone = orientation != _orientation(image.path)
    except mask_files.BadMask as error:
        raise UsageError(f'ImageId {name}: the mask {mask.path}: {error}') from error
    text = rle.encode(pixels)
    rles = () if text == rle.EMPTY else (text,)
    return Drawn(rles, pixels.shape, float(pixels.mean()), sure, values, turned_alone)


def _orientation(path: str) -> int:
    try:
        with limits.BoundedFile(path) as file:
            return exif.orientation(file)
    except OSError:  # reading the image will report it
        return exif.UPRIGHT


# --- which images are used --------------------------------------------------------------------


def _chosen(
    images: Mapping[str, Image],
    found: Mapping[str, Mask],
    rows: Mapping[str, TableRow] | None,
    with_test: bool,
) -> list[str]:
    """ImageIds of the images to use; warnings count those left out."""
    listed = set(images)
    if rows is not None:
        without_row = [(name, '') for name in images if name not in rows]
        _warn(without_row, '%d images have no row in the table and are left out')
        without_image = [(name, '') for name in rows if name not in images]
        _warn(without_image, '%d ImageIds of the table have no image and are left out')
        test = {n for n in listed & rows.keys() if rows[n].side == 'test' and not with_test}
        message = "%d images are left out because the table's column split is test"
        _warn([(name, '') for name in sorted(test)], message)
        listed = (listed & rows.keys()) - test
    negative = {name for name in listed if rows is not None and rows[name].positive is False}
    usable = {name for name in listed if name in found} | negative
    message = (
        '%d images have no mask and are left out; if one shows no pneumothorax, state that with an '
        'all-black mask, or with 0 in the column Pneumothorax of the table'
    )
    _warn([(name, '') for name in sorted(listed - usable)], message)
    if not usable:
        raise UsageError(
            f'config.data.root: none of {len(images)} images can be used; the warnings above say '
            'why'
        )
    return sorted(usable)


def _owners(
    names: list[str],
    images: Mapping[str, Image],
    rows: Mapping[str, TableRow] | None,
    patients: str,
) -> dict[str, str]:
    """Maps ImageId to patient."""
    by_table = {} if rows is None else {name: rows[name].patient for name in names}
    if any(by_table.values()):
        if patients:
            raise UsageError(
                f'config.data.patients: both {patients!r} and the column PatientId of the table '
                'name the patient of an image; keep one of them'
            )
        return by_table
    if patients:
        return siim.read_patients(patients, names)
    headed = [images[name].patient for name in names if images[name].patient]
    if len(headed) > 1 and len(set(headed)) == 1:
        raise UsageError(
            f'all {len(headed)} DICOM files have the same PatientID, so none can be held out; if '
            'it was anonymised, name the patients in the column PatientId of config.data.table'
        )
    return {name: images[name].patient or name for name in names}


def _check_row(example: Example, row: TableRow | None) -> None:
    if row is not None and row.positive not in (None, example.positive):
        raise UsageError(
            f'ImageId {example.image_id}: the table says Pneumothorax {int(bool(row.positive))}, '
            f'but the mask is {"not " if example.positive else ""}empty; correct one of them'
        )


# --- helpers -----------------------------------------------------------------------------------


def _each(
    function: Callable[[Item], Result], items: Iterable[Item], label: str
) -> Iterator[tuple[Item, Result]]:
    """Yields (item, result) in the order of the items, computed in threads."""
    todo, threads = list(items), cores()
    with ThreadPoolExecutor(threads) as pool:
        results = ordered_map(pool, function, todo, 4 * threads)
        progress = bar(results, label, len(todo), unit='file', disable=not todo)
        yield from zip(todo, progress, strict=True)


def _warn(items: list[tuple[str, str]], message: str) -> None:
    """Logs one line: how many items, and the first with its reason; nothing without items."""
    if items:
        path, reason = items[0]
        log.warning(
            message + '; the first is %s%s', len(items), path, f' ({reason})' * bool(reason)
        )


def _forms(one: str, other: str) -> str:
    """Why two names that look alike and are not the same on the disk count as one."""
    same = os.path.splitext(os.path.basename(one)), os.path.splitext(os.path.basename(other))
    return '' if same[0][0] == same[1][0] else ' in whichever form (NFC, NFD) accents are written'


def _example_names(files: Files) -> str:
    image = next(iter(files.images))
    if not files.pngs:
        return ''
    return f' ({next(iter(files.pngs))}.png has another name than the first image, {image})'
