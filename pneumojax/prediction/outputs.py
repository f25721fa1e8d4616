"""The files of a prediction's folder: writes them, checks them, removes those that are stale.

To add a file about each image, see `image_files`. To add a file about the whole prediction, write
it in `write_tables` and describe it in `FILES`. If users should choose, add a field to `Options` in
`options`, and a flag of the same name to `pneumojax/flags.py`.
"""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pneumojax import __version__
from pneumojax.data.files import inputs
from pneumojax.errors import UsageError
from pneumojax.evaluation.wording import probability_sentence
from pneumojax.prediction import report, submission
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.folder import JOURNAL, LOCK, STATEMENT, OutputFolder
from pneumojax.prediction.image_files import (
    PER_IMAGE,
    ImageFile,
    NotPossible,
    PredictedImage,
    computed_by,
    path_of,
)
from pneumojax.prediction.journal import ResultRow
from pneumojax.prediction.options import Options
from pneumojax.system import text
from pneumojax.system.progress import log

DICOM = {name: file for name, file in PER_IMAGE.items() if file.suffix == '.dcm'}

# All that the folder holds. The documentation's reference is made from this.
FILES = {
    'results.csv': 'One row per input file: status, reason, probability, score, area in pixels '
    'and mm².',
    'results.jsonl': 'The same rows for scripts, a JSON object a line, with names as they are.',
    'submission.csv': "Kaggle's format: ImageId and run-length code, `-1` for an empty mask.",
    'report.html': 'All of it on one page, to sort and search (`--noreport` leaves it out).',
    **{f'{name}/': file.description for name, file in PER_IMAGE.items()},
    STATEMENT: 'What is predicted with which weights; another prediction is refused here.',
    JOURNAL: 'What is done so far: the same command continues from it.',
    LOCK: 'Which process predicts into the folder, for as long as it does.',
}


def write_image_files(image: PredictedImage, folder: OutputFolder, options: Options) -> None:
    """Writes every wanted file about one image and records them in its row.

    Raises:
      UsageError: the folder cannot be written.
    """
    try:
        write_files(image, folder, options, PER_IMAGE)
    except OSError as error:
        raise UsageError(
            f'{error.filename or folder.path} cannot be written: {error.strerror}; '
            'fix this, then rerun the same command to continue'
        ) from error
    if options.report:
        image.row['thumbnail'] = report.thumbnail(image.radiograph.image, image.mask)


def write_files(
    image: PredictedImage,
    folder: OutputFolder | pathlib.Path,
    options: Options,
    files: Mapping[str, ImageFile],
) -> list[str]:
    """Writes those of `files` that are wanted about one image and records them in its row.

    Args:
      image: what is written about.
      folder: with a folder in it for each of `files`.
      options: which are wanted.
      files: part of `PER_IMAGE`.

    Returns:
      Why some could not be made, if so.

    Raises:
      OSError: the folder cannot be written.
    """
    row, problems = image.row, []
    row['written'] = {}
    for name, file in files.items():
        if not file.is_wanted(options):
            continue
        path = path_of(name, row)
        try:
            file.write(folder / path, image, options)
        except NotPossible as reason:
            row[name] = False
            problems += [str(reason)] if reason.args else []
        else:
            row['written'][path] = _fingerprint(folder / path)
    row['notes'] += problems
    return problems


def are_written(row: ResultRow, folder: OutputFolder, options: Options) -> bool:
    """Whether every wanted file about an image is there, as its row recorded it."""
    if options.report and 'thumbnail' not in row:
        return False
    try:
        return all(
            _is_as_written(folder / path, row['written'][path], quick=not file.has_checksum)
            for name, file in PER_IMAGE.items()
            if file.is_wanted(options) and row.get(name, True)
            for path in [path_of(name, row)]
        )
    except KeyError:
        return False


def remove_stale(folder: OutputFolder, done: Collection[str]) -> None:
    """Removes what is there about inputs that are gone, changed or to be predicted again.

    Only files that are as this program wrote them. The others may be a user's work by now.

    Args:
      folder: whose journal tells what was written.
      done: the input files whose results stay.
    """
    kept, removed = set(done), 0
    for file in folder.journal.files:
        if file in kept:
            continue
        row = folder.journal[file]
        if folder.journal.file_named(row['ImageId']) != file:
            continue  # the names now belong to another input
        for name in PER_IMAGE:
            path = path_of(name, row)
            recorded = row.get('written', {}).get(path)
            if recorded is not None and _is_as_written(folder / path, recorded):
                (folder / path).unlink()
                removed += 1
    if removed:
        log.info(
            'removed %d files about inputs that are gone, changed or to be predicted again',
            removed,
        )


def warn_of_others(folder: OutputFolder, files: Collection[str]) -> None:
    """Warns of files beside the results that are not about any of the input files."""
    wanted, others = set(files), []
    for name, file in PER_IMAGE.items():
        for entry in os.scandir(folder / name):
            if entry.name.startswith('.'):
                continue  # of a file manager
            about = folder.journal.file_named(entry.name.removesuffix(file.suffix))
            row = folder.journal[about] if about in wanted else {}
            if f'{name}/{entry.name}' not in row.get('written', {}):
                others.append(entry.path)
    if others:
        log.warning(
            '%d files, such as %s, are about no input and are not as this program wrote them, so '
            'they were left; remove them if they are not yours',
            len(others), text.visible(min(others)),
        )  # fmt: skip


def with_reasons(rows: Iterable[ResultRow]) -> Iterator[ResultRow]:
    """Gives each row of a radiograph its reason: its notes, and which row before shows the same.

    That depends on the other inputs, which may have changed since the row was recorded.
    """
    first_with: dict[str, str] = {}
    for row in rows:
        notes = list(row['notes'])
        if row['sop'] is not None:
            first = first_with.setdefault(row['sop'], row['file'])
            if first != row['file']:
                notes.append(f'same SOPInstanceUID as {inputs.printable(first)}')
        if row['status'] == 'ok':
            row['reason'] = '; '.join(notes)
        yield row


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

    def rows(files: Iterable[str]) -> Iterator[ResultRow]:
        return with_reasons(folder.journal.rows(files))

    submission.write_results(folder / 'results.csv', folder / 'results.jsonl', rows(files))
    submission.write_submission(folder / 'submission.csv', rows(files))
    if options.report:
        about = report.About(
            counts=counts,
            runs=ensemble.identity,
            rule=dataclasses.asdict(ensemble.rule),
            probability=probability_sentence(ensemble.stated_calibration),
            evaluation=ensemble.evaluation,
            version=f'{__version__}, computed by {computed_by(ensemble)}',
            show_names=options.show_names,
        )
        report.write(folder / 'report.html', rows(files), about)


def _fingerprint(path: pathlib.Path) -> list[int]:
    """Length of a written file, and its checksum."""
    content = path.read_bytes()
    return [len(content), zlib.crc32(content)]


def _is_as_written(path: pathlib.Path, recorded: Any, *, quick: bool = False) -> bool:
    """Whether a file is there as it was recorded; if that should be quick, only its length."""
    try:
        if quick:
            return path.stat().st_size == recorded[0]
        return _fingerprint(path) == recorded
    except (OSError, TypeError, IndexError):
        return False
