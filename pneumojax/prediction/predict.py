"""A folder of radiographs in, masks out: for viewers, for scripts and for people.

Images stream through: threads read and fit them, the device predicts batches, threads write what
each image gives. Results are recorded in the order of the files, one by one, so a prediction that
was interrupted goes on where it stopped, and memory does not grow with the folder.
"""

import collections
import dataclasses
import functools
import os
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from tqdm import tqdm

from pneumojax import __version__
from pneumojax.data import rle
from pneumojax.data.files import headers, inputs
from pneumojax.data.files.silence import silence_libraries
from pneumojax.drawing import heatmap, overlay
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics, rules
from pneumojax.prediction import report, submission
from pneumojax.prediction.ensemble import Ensemble, Squares
from pneumojax.prediction.folder import OutputFolder
from pneumojax.prediction.streaming import Item, Loaded, Row, predicted_rows, stamp
from pneumojax.runs.run import Run
from pneumojax.system.progress import log


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write beside tables and masks.

    Attributes:
      seg: DICOM SEG files of masks ('binary'), of probabilities ('fractional'), or none.
      overlays: pictures of the outline on the radiograph.
      heatmap: pictures of the probability.
      report: `report.html`.
      show_names: patients' names in the report.
      runtime: what computes, see `inference.runtimes.choose`.
      precision: of the computation, see there.
    """

    seg: Literal['binary', 'fractional', 'none'] = 'binary'
    overlays: bool = True
    heatmap: bool = False
    report: bool = True
    show_names: bool = False
    runtime: str = 'auto'
    precision: str = 'auto'

    def __post_init__(self):
        if self.seg not in ('binary', 'fractional', 'none'):
            raise UsageError(f"--seg is {self.seg!r}: expected 'binary', 'fractional' or 'none'")


def predict(runs: Sequence[Run], source: str, output: str, options: Options | None = None) -> int:
    """Predicts every radiograph below a folder, or continues to.

    Args:
      runs: evaluated runs whose probabilities are averaged; the thresholds are the first one's.
      source: file or folder.
      output: folder for what is written; new, empty, or of the same prediction.
      options: what to write.

    Returns:
      Exit status: 0 when every file was read or is no radiograph, 3 when some could not be read.

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
    statement = {
        'runs': ensemble.identity,
        'runtime': ensemble.runtime,
        'rule': dataclasses.asdict(ensemble.rule),
        'input': os.path.abspath(source),
        'seg': options.seg,
        'show_names': options.show_names,
    }
    with silence_libraries(), OutputFolder(output, statement) as folder:
        counts = _predict_files(ensemble, source, files, folder, options)
        _write_tables(folder, files, counts, ensemble, options)
    return _summarize(counts, folder)


def _predict_files(ensemble, source, files, folder, options) -> collections.Counter:
    base = source if os.path.isdir(source) else os.path.dirname(source)
    paths = {file: os.path.join(base, file) for file in files}
    kept = {f for f in files if _is_finished(f, paths[f], folder, options)}
    names = inputs.image_ids(files, {file: folder.journal[file]['ImageId'] for file in kept})
    items = [Item(paths[f], f, names[f]) for f in files if f not in kept]
    if kept:
        log.info('%d of %d files are done already', len(kept), len(files))
    counts, first_with = collections.Counter(), {}
    bar = tqdm(desc='predict', total=len(files), initial=len(kept), unit='file')
    with bar, submission.Results(folder / 'results.csv') as results:
        for row in folder.journal.rows(f for f in files if f in kept):
            results.add(row)
            counts[row['status']] += 1
            counts['marked'] += row['area_px'] > 0
            first_with.setdefault(row['sop'], row['file'])
        write = functools.partial(write_outputs, ensemble=ensemble, folder=folder, options=options)
        for row in predicted_rows(ensemble, items, write):
            _note_duplicates(row, first_with)
            folder.journal.add(row)
            results.add(row)
            counts[row['status']] += 1
            counts['marked'] += bool(row['area_px'])
            counts['again'] += bool(row.get('predicted_again'))
            bar.update()
    return counts


def write_outputs(
    loaded: Loaded, squares: Squares, *, ensemble: Ensemble, folder, options: Options
) -> Row:
    """Writes every file about one image and returns its row."""
    radiograph, name = loaded.radiograph, loaded.item.name
    assert radiograph is not None  # only what was read is predicted
    image = radiograph.image
    probability, again = ensemble.probability(
        loaded.squares, squares, image.shape, radiograph.aspect
    )
    mask = rules.apply(ensemble.rule, probability)
    row, area = loaded.row, int(np.count_nonzero(mask))
    row |= {
        'probability': metrics.image_probability(probability),
        'area_px': area,
        'shape': list(image.shape),
        'rle': rle.encode(mask),
        'predicted_again': again,
    }
    if radiograph.spacing:
        row['area_mm2'] = area * radiograph.spacing[0] * radiograph.spacing[1]
    if options.show_names and radiograph.header is not None:
        row['patient'] = headers.text(radiograph.header, 'PatientName')
    try:
        overlay.write_png(folder / f'masks/{name}.png', mask * np.uint8(255))
        if options.overlays:
            picture = overlay.overlay(image, mask)
            overlay.write_png(folder / f'overlays/{name}.png', picture)
        if options.heatmap:
            picture = heatmap.heatmap(image, probability)
            overlay.write_png(folder / f'heatmaps/{name}.png', picture)
        if options.report:
            row['thumbnail'] = report.thumbnail(image, mask)
        row['seg'] = False
        if options.seg != 'none' and radiograph.header is not None:
            result = mask if options.seg == 'binary' else probability
            _write_seg(row, folder / f'seg/{name}.dcm', radiograph, result, ensemble, options.seg)
        row['written'] = {name: _mark(folder / name) for name in _wanted(row, options)}
    except OSError as error:
        raise UsageError(
            f'{error.filename or folder.path} cannot be written: {error.strerror}; '
            'mend that, then the same command continues'
        ) from error
    return row


def _write_seg(row, path, radiograph, result, ensemble, kind) -> None:
    from pneumojax.prediction import seg  # late: takes a second to import

    rule = ensemble.rule
    algorithm = seg.Algorithm(
        __version__,
        ' '.join(f'{m["name"]}@{m["step"]}' for m in ensemble.identity),
        {
            'top': f'{rule.top:g}',
            'area': str(rule.area),
            'bottom': f'{rule.bottom:g}',
            'runtime': _computed_by(ensemble),
        },
    )
    try:
        seg.write(
            path,
            radiograph.header,
            result,
            kind=kind,
            algorithm=algorithm,
            key=inputs.printable(row['file']),
        )
        row['seg'] = True
    except seg.NoReference as error:
        row['notes'].append(f'no SEG: {error}')
    except OSError:
        raise
    # The header is foreign input; its text may be in the message, so only the type is passed on.
    except Exception as error:
        row['notes'].append(f'no SEG: its header cannot be taken over ({type(error).__name__})')


def _computed_by(ensemble) -> str:
    return f'{ensemble.runtime["name"]}, {ensemble.runtime["precision"]}'


def _note_duplicates(row: Row, first_with: dict[str | None, str]) -> None:
    if row['sop'] is not None:
        first = first_with.setdefault(row['sop'], row['file'])
        if first != row['file']:
            row['notes'].append(f'same SOPInstanceUID as {inputs.printable(first)}')
    if row['status'] == 'ok':
        row['reason'] = '; '.join(row['notes'])


def _write_tables(folder, files, counts, ensemble, options) -> None:
    """What is written when all is done: everything in the order of the files."""
    journal = folder.journal
    submission.write_results(folder / 'results.csv', journal.rows(files))
    submission.write_submission(folder / 'submission.csv', journal.rows(files))
    if options.report:
        report.write(
            folder / 'report.html',
            journal.rows(files),
            counts=counts,
            runs=ensemble.identity,
            version=f'{__version__}, computed by {_computed_by(ensemble)}',
            rule=dataclasses.asdict(ensemble.rule),
            evaluation=ensemble.evaluation,
            overlays=options.overlays,
            heatmaps=options.heatmap,
            show_names=options.show_names,
        )


def _summarize(counts: collections.Counter, folder) -> int:
    log.info(
        '%d radiographs, %d with a marked area; %d other files skipped, %d could not be read; '
        'see %s',
        counts['ok'], counts['marked'], counts['skipped'], counts['error'], folder / 'results.csv',
    )  # fmt: skip
    if counts['again']:
        log.info('%d predicted again in float32: their masks hung on rounding', counts['again'])
    if not counts['ok']:
        log.warning('no radiograph was found; results.csv says what each file is')
    return 3 if counts['error'] else 0


def _is_finished(file: str, path: str, folder, options: Options) -> bool:
    """Whether an earlier run read this very file and everything wanted about it is there."""
    if file not in folder.journal:
        return False
    row = folder.journal[file]
    if row['status'] != 'ok' or any(row[key] != value for key, value in stamp(path).items()):
        return False
    if options.report and 'thumbnail' not in row:
        return False
    try:
        return all(row['written'][name] == _mark(folder / name) for name in _wanted(row, options))
    except (OSError, KeyError):
        return False


def _wanted(row: Row, options: Options) -> list[str]:
    """The files about one image, relative to the folder."""
    name = row['ImageId']
    return [
        f'masks/{name}.png',
        *([f'overlays/{name}.png'] if options.overlays else []),
        *([f'heatmaps/{name}.png'] if options.heatmap else []),
        *([f'seg/{name}.dcm'] if row['seg'] else []),
    ]


def _mark(path) -> list[int]:
    """Length of a file; of masks and SEG files, which are the result, a checksum too."""
    if path.parent.name in ('masks', 'seg'):
        content = path.read_bytes()
        return [len(content), zlib.crc32(content)]
    return [path.stat().st_size]
