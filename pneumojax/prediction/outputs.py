"""The files that a prediction writes: their names, when they are wanted, and what writes them.

To add a file about each image, write a function such as `_write_overlay` and add it to `PER_IMAGE`.
To add a file about the whole prediction, write it in `write_tables` and describe it in `FILES`. If
users should choose, add a field to `Options`, a flag to `pneumojax/flags.py`, and pass it on in
`pneumojax/main.py`.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pneumojax import __version__
from pneumojax.data.files import inputs
from pneumojax.drawing import heatmap, overlay
from pneumojax.errors import UsageError
from pneumojax.prediction import report, submission
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.folder import JOURNAL, STATEMENT, OutputFolder
from pneumojax.prediction.journal import ResultRow


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write besides tables and masks, and what computes.

    Attributes:
      seg: DICOM SEG files of masks ('binary'), of probabilities ('fractional'), or none.
      overlays: pictures of the outline on the radiograph.
      heatmap: pictures of the probability on the radiograph.
      report: `report.html`.
      show_names: patients' names in the report.
      runtime: what computes, see `runtimes.choose`.
      precision: of the computation, see `runtimes.choose`.
    """

    seg: Literal['binary', 'fractional', 'none'] = 'binary'
    overlays: bool = True
    heatmap: bool = False
    report: bool = True
    show_names: bool = False
    runtime: str = 'auto'
    precision: str = 'auto'

    def __post_init__(self) -> None:
        if self.seg not in ('binary', 'fractional', 'none'):
            raise UsageError(f"--seg is {self.seg!r}: expected 'binary', 'fractional' or 'none'")


class PredictedImage(NamedTuple):
    """One image and its prediction, at its original size."""

    radiograph: inputs.Radiograph
    probability: np.ndarray  # float32 [H, W]
    mask: np.ndarray  # uint8 [H, W], 0 and 1
    row: ResultRow
    ensemble: Ensemble


class ImageFile(NamedTuple):
    """A file that is written about each image, in a folder of its own."""

    suffix: str
    description: str  # for the documentation's reference
    is_wanted: Callable[[Options], bool]
    write: Callable[[pathlib.Path, PredictedImage, Options], None]
    has_checksum: bool = False  # in the journal: it is the result, not a picture of it


class NotPossible(Exception):
    """The file cannot be made for this image; the message, if any, becomes a note in its row."""


def _write_mask(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    overlay.write_png(path, image.mask * np.uint8(255))


def _write_overlay(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    overlay.write_png(path, overlay.overlay(image.radiograph.image, image.mask))


def _write_heatmap(path: pathlib.Path, image: PredictedImage, _: Options) -> None:
    overlay.write_png(path, heatmap.heatmap(image.radiograph.image, image.probability))


def _write_seg(path: pathlib.Path, image: PredictedImage, options: Options) -> None:
    from pneumojax.prediction import seg  # late: takes a second to import

    if image.radiograph.header is None:
        raise NotPossible
    assert options.seg != 'none'  # or it would not be wanted
    ensemble, rule = image.ensemble, image.ensemble.rule
    algorithm = seg.Algorithm(
        version=__version__,
        run=' '.join(f'{m["name"]}@{m["step"]}' for m in ensemble.identity),
        parameters={
            'top': f'{rule.top:g}',
            'area': str(rule.area),
            'bottom': f'{rule.bottom:g}',
            'runtime': _computed_by(ensemble),
        },
    )
    try:
        seg.write(
            path,
            image.radiograph.header,
            image.mask if options.seg == 'binary' else image.probability,
            kind=options.seg,
            algorithm=algorithm,
            key=inputs.printable(image.row['file']),
        )
    except seg.NoReference as error:
        raise NotPossible(f'no SEG: {error}') from None
    except OSError:
        raise
    # The message may quote the header, which names a patient, so only the type is passed on.
    except Exception as error:
        raise NotPossible(
            f'no SEG: its header cannot be taken over ({type(error).__name__})'
        ) from None
    emptied = seg.emptied(image.radiograph.header)
    if emptied:
        note = f'empty in the SEG, as the value breaks the rules of DICOM: {", ".join(emptied)}'
        image.row['notes'].append(note)


# By folder, in the order in which they are written.
PER_IMAGE = {
    'masks': ImageFile(
        '.png', 'One PNG per image, 0 and 255, in the original size.',
        lambda options: True, _write_mask, has_checksum=True,
    ),
    'overlays': ImageFile(
        '.png', 'The outline on the radiograph (`--nooverlays` leaves them out).',
        lambda options: options.overlays, _write_overlay,
    ),
    'heatmaps': ImageFile(
        '.png', 'The probability on the radiograph, with `--heatmap`.',
        lambda options: options.heatmap, _write_heatmap,
    ),
    'seg': ImageFile(
        '.dcm', 'One DICOM SEG per DICOM file; `--seg` chooses masks, probabilities or none.',
        lambda options: options.seg != 'none', _write_seg, has_checksum=True,
    ),
}  # fmt: skip

# All that the folder holds. The documentation's reference is made from this.
FILES = {
    'results.csv': 'One row per input file: status, reason, probability, area in pixels and mm².',
    'submission.csv': "Kaggle's format: ImageId and run-length code, `-1` for an empty mask.",
    'report.html': 'All of it on one page, to sort and search (`--noreport` leaves it out).',
    **{f'{name}/': file.description for name, file in PER_IMAGE.items()},
    STATEMENT: 'What is predicted with which weights; another prediction is refused here.',
    JOURNAL: 'What is done so far: the same command continues from it.',
}


def write_image_files(image: PredictedImage, folder: OutputFolder, options: Options) -> None:
    """Writes every wanted file about one image and records them in its row.

    Raises:
      UsageError: the folder cannot be written.
    """
    row = image.row
    row['written'] = {}
    try:
        for name, file in PER_IMAGE.items():
            if not file.is_wanted(options):
                continue
            path = _path(name, row)
            try:
                file.write(folder / path, image, options)
            except NotPossible as reason:
                row[name] = False
                row['notes'] += [str(reason)] if reason.args else []
            else:
                row['written'][path] = _fingerprint(folder / path, file)
    except OSError as error:
        raise UsageError(
            f'{error.filename or folder.path} cannot be written: {error.strerror}; '
            'fix this, then rerun the same command to continue'
        ) from error
    if options.report:
        row['thumbnail'] = report.thumbnail(image.radiograph.image, image.mask)


def are_written(row: ResultRow, folder: OutputFolder, options: Options) -> bool:
    """Whether every wanted file about an image is there, as its row recorded it."""
    if options.report and 'thumbnail' not in row:
        return False
    try:
        return all(
            row['written'][path] == _fingerprint(folder / path, file)
            for name, file in PER_IMAGE.items()
            if file.is_wanted(options) and row.get(name, True)
            for path in [_path(name, row)]
        )
    except (OSError, KeyError):
        return False


def write_tables(
    folder: OutputFolder,
    files: Sequence[str],
    counts: Mapping[str, int],
    ensemble: Ensemble,
    options: Options,
) -> None:
    """Writes what is about the whole prediction, in the order of the input files.

    Args:
      folder: whose journal holds a row about each file.
      files: the input files.
      counts: of rows 'ok', 'marked', 'skipped', 'error'.
      ensemble: what predicted.
      options: what to write.
    """
    rows = folder.journal.rows
    submission.write_results(folder / 'results.csv', rows(files))
    submission.write_submission(folder / 'submission.csv', rows(files))
    if options.report:
        about = report.About(
            counts=counts,
            runs=ensemble.identity,
            rule=dataclasses.asdict(ensemble.rule),
            evaluation=ensemble.evaluation,
            version=f'{__version__}, computed by {_computed_by(ensemble)}',
            show_names=options.show_names,
        )
        report.write(folder / 'report.html', rows(files), about)


def _computed_by(ensemble: Ensemble) -> str:
    return f'{ensemble.runtime["name"]}, {ensemble.runtime["precision"]}'


def _path(name: str, row: ResultRow) -> str:
    return f'{name}/{row["ImageId"]}{PER_IMAGE[name].suffix}'


def _fingerprint(path: pathlib.Path, file: ImageFile) -> list[int]:
    """Length of a written file, and its checksum if it is a result."""
    if file.has_checksum:
        content = path.read_bytes()
        return [len(content), zlib.crc32(content)]
    return [path.stat().st_size]
