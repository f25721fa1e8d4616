"""A folder of radiographs in, masks out: for viewers, for scripts and for people.

Images stream through: threads read and fit them, the device predicts batches, threads write the
files about each image. Results are recorded one by one, in the order of the files, so an
interrupted prediction continues where it stopped, and memory does not grow with the folder.
"""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pneumojax import __version__
from pneumojax.data import rle
from pneumojax.data.files import chest, headers, inputs
from pneumojax.data.files.silence import silence_libraries
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics, rules
from pneumojax.prediction import outputs, streaming, submission
from pneumojax.prediction.ensemble import Ensemble, Squares
from pneumojax.prediction.folder import OutputFolder
from pneumojax.prediction.journal import ResultRow
from pneumojax.prediction.options import Options
from pneumojax.prediction.streaming import Item, Loaded, predicted_rows, stamp
from pneumojax.runs.run import Run
from pneumojax.system.progress import bar, log


def predict(runs: Sequence[Run], source: str, output: str, options: Options | None = None) -> int:
    """Predicts every radiograph below a folder, or continues to.

    Args:
      runs: evaluated runs whose probabilities are averaged; the first one's thresholds are used.
      source: file or folder.
      output: folder to write to; new, empty, or of the same prediction.
      options: what to write.

    Returns:
      Exit status: 0 if every radiograph was read, 3 if some could not be, or if there was none.

    Raises:
      UsageError: unusable runs, nothing to read, or an output folder that cannot be used.
    """
    options = options or Options()
    if not source or not output:
        raise UsageError('predict needs --input=FILE or folder, and --output=FOLDER')
    if os.path.realpath(source) == os.path.realpath(output):
        raise UsageError(f'--output is the input itself, {output}; give a new or empty folder')
    files = inputs.find(source, leave_out=output)
    ensemble = Ensemble(runs, options.runtime, options.precision, len(files))
    statement = _statement(ensemble, source, options)
    place = OutputFolder(output, statement, outputs.PER_IMAGE, private=options.private)
    with silence_libraries(), place as folder:
        done, items = _divide(files, source, folder, options)
        outputs.remove_stale(folder, done)
        counts = _predict_items(items, done, ensemble, folder, options)
        folder.journal.sync()
        outputs.write_tables(folder, files, counts, ensemble, options)
        outputs.warn_of_others(folder, files)
        return _summarize(counts, folder)


def _statement(ensemble: Ensemble, source: str, options: Options) -> dict[str, Any]:
    """What identifies a prediction: it is continued only if all of this is the same."""
    return {
        'version': __version__,  # another one may read or fit images in another way
        'runs': ensemble.identity,
        'runtime': ensemble.runtime,
        'rule': dataclasses.asdict(ensemble.rule),
        'probability': ensemble.stated_calibration,
        'input': os.path.abspath(source),
        **options.identity,
    }


def _divide(
    files: Sequence[str], source: str, folder: OutputFolder, options: Options
) -> tuple[list[str], list[Item]]:
    """The files that an earlier run finished, and the others, which are to be predicted."""
    base = source if os.path.isdir(source) else os.path.dirname(source)
    paths = {file: os.path.join(base, file) for file in files}
    done = [file for file in files if _is_done(file, paths[file], folder, options)]
    if done:
        log.info('%d of %d files are done already', len(done), len(files))
    names = inputs.image_ids(files, {file: folder.journal[file]['ImageId'] for file in done})
    finished = set(done)
    return done, [Item(paths[f], f, names[f]) for f in files if f not in finished]


def _is_done(file: str, path: str, folder: OutputFolder, options: Options) -> bool:
    """Whether an earlier run read this very file and wrote everything wanted about it."""
    if file not in folder.journal:
        return False
    row = folder.journal[file]
    if row['status'] != 'ok' or any(row[key] != value for key, value in stamp(path).items()):
        return False
    if folder.journal.file_named(row['ImageId']) != file:
        return False  # its files are another input's by now
    return outputs.are_written(row, folder, options)


def _predict_items(
    items: Sequence[Item],
    done: Sequence[str],
    ensemble: Ensemble,
    folder: OutputFolder,
    options: Options,
) -> collections.Counter[str]:
    """Predicts what is left and records it; returns the number of rows of each kind."""
    counts: collections.Counter[str] = collections.Counter()
    finish = functools.partial(finish_image, ensemble=ensemble, folder=folder, options=options)
    shown = bar(desc='predict', total=len(done) + len(items), initial=len(done), unit='file')

    def rows() -> Iterator[ResultRow]:
        yield from folder.journal.rows(done)
        for row in predicted_rows(ensemble, items, finish, options.accept):
            folder.journal.add(row)
            shown.update()
            yield row

    with shown, submission.Results(folder / 'results.csv', folder / 'results.jsonl') as results:
        for row in outputs.with_reasons(rows()):
            results.add(row)
            _count(row, counts)
    return counts


def finish_image(
    loaded: Loaded,
    squares: Squares,
    *,
    ensemble: Ensemble,
    folder: OutputFolder,
    options: Options,
) -> ResultRow:
    """Makes one image's mask, writes every file about the image and returns its row."""
    image = _predicted_image(loaded, squares, ensemble, options)
    outputs.write_image_files(image, folder, options)
    return image.row


def predict_file(
    ensemble: Ensemble, item: Item, folder: pathlib.Path, options: Options
) -> ResultRow:
    """Predicts one file and writes the DICOM files about it, and no others.

    Args:
      ensemble: what predicts.
      item: the file. Its `file` and `name` decide the UIDs and the names of what is written.
      folder: to write to; subfolders are made.
      options: which DICOM files.

    Returns:
      The file's row. 'status' is 'ok', 'skipped' or 'error'; the last as well if a file that is
      wanted could not be made. 'written' lists the files, below `folder`, if it is 'ok'.

    Raises:
      OSError: the folder cannot be written.
    """
    loaded = streaming.load(item, ensemble.sizes, options.accept)
    if loaded.radiograph is None:
        return loaded.row
    batch = {size: square[None] for size, square in loaded.squares.items()}
    squares = {size: predicted[0] for size, predicted in ensemble.predict(batch).items()}
    image = _predicted_image(loaded, squares, ensemble, options)
    for name in outputs.DICOM:
        (folder / name).mkdir(exist_ok=True)
    problems = outputs.write_files(image, folder, options, outputs.DICOM)
    if problems:
        return image.row | {'status': 'error', 'reason': '; '.join(problems)}
    return image.row


def _predicted_image(
    loaded: Loaded, squares: Squares, ensemble: Ensemble, options: Options
) -> outputs.PredictedImage:
    radiograph, row = loaded.radiograph, loaded.row
    assert radiograph is not None  # only what was read is predicted
    shape = radiograph.image.shape
    probability, again = ensemble.probability(loaded.squares, squares, shape, radiograph.aspect)
    mask = rules.apply(ensemble.rule, probability)
    score = metrics.image_score(probability)
    row |= {
        'probability': ensemble.image_probability(score),
        'score': score,
        'area_px': int(np.count_nonzero(mask)),
        'shape': list(shape),
        'rle': rle.encode(mask),
        'predicted_again': again,
    }
    if radiograph.spacing:
        row['area_mm2'] = row['area_px'] * radiograph.spacing[0] * radiograph.spacing[1]
    if options.show_names and radiograph.header is not None:
        row['patient'] = headers.text(radiograph.header, 'PatientName')
    return outputs.PredictedImage(radiograph, probability, mask, row, ensemble)


def _count(row: ResultRow, counts: collections.Counter[str]) -> None:
    counts[row['status']] += 1
    counts['marked'] += bool(row['area_px'])
    counts['refused'] += row['reason'].startswith(chest.REFUSED)
    counts['again'] += bool(row.get('predicted_again'))


def _summarize(counts: collections.Counter[str], folder: OutputFolder) -> int:
    """Logs how it went; returns the exit status."""
    log.info(
        '%d radiographs, %d with a marked area; %d other files skipped, %d could not be read; '
        'see %s',
        counts['ok'], counts['marked'], counts['skipped'], counts['error'], folder / 'results.csv',
    )  # fmt: skip
    if counts['refused']:
        log.info(
            '%d of the skipped are no frontal chest radiographs by their tags; --accept=any '
            'predicts them too',
            counts['refused'],
        )
    if counts['again']:
        log.info(
            '%d borderline images predicted again in float32: their masks were sensitive to '
            'rounding',
            counts['again'],
        )
    if not counts['ok']:
        log.warning('there is no radiograph in the input; results.csv says what each file is')
    return 3 if counts['error'] or not counts['ok'] else 0
