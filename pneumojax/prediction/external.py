"""Evaluates a run on labelled images from elsewhere, under the rule that it has.

Nothing is chosen on these images: they are predicted exactly as `predict` predicts, the rule is the
one in the run's thresholds.json, and the masks are compared with the true ones only then.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pneumojax import __version__
from pneumojax.data import dataset as dataset_lib
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets.example import Example
from pneumojax.data.files.silence import silence_libraries
from pneumojax.errors import UsageError
from pneumojax.evaluation import (
    levels,
    measure,
    metrics,
    per_image,
    per_lesion,
    pictures,
    rules,
    run_report,
)
from pneumojax.evaluation.sections import registry, subgroups
from pneumojax.evaluation.sections.section import Measured
from pneumojax.evaluation.wording import METRIC_NAMES, value_and_interval
from pneumojax.prediction.ensemble import Ensemble, Squares
from pneumojax.prediction.options import Options
from pneumojax.prediction.overlap import Learned
from pneumojax.prediction.streaming import Item, Loaded, predicted_rows
from pneumojax.runs.run import Run
from pneumojax.system import atomic, parallel
from pneumojax.system.progress import bar, log

FILES = {
    'evaluation.json': 'The figures with their intervals, and under `external` what they are of: '
    'the digest of the images and masks, the networks, the rule, what was left out.',
    'per_image.csv': 'One row per image: Dice, true and predicted pixels, probability, score, and '
    'a number for each patient.',
    'per_lesion.csv': 'One row per true lesion and false mark: area, found or not, IoU, '
    'confidence.',
    'froc.png': 'Share of lesions found against false marks an image.',
    'image_level.png': 'Calibration before and after, precision and recall, net benefit, '
    'predictive values.',
    'contact_sheet.png': 'Best, middle and worst positives, most suspicious negatives.',
    'subgroups.png': 'Figures of groups by lesion size and DICOM tags, where any is large enough.',
    'report.html': 'All of it on one page.',
}


@silence_libraries()
def evaluate(
    runs: Sequence[Run], source: str, output: str, options: Options | None = None
) -> dict[str, Any]:
    """Scores runs on a folder of labelled images, and writes `FILES` into a new folder.

    Images that the runs were trained or calibrated on are left out, with a warning.

    Args:
      runs: evaluated runs whose probabilities are averaged, as in `predict`; the first one's rule
        makes the masks. None of their files change.
      source: folder in one of the layouts that can be trained on, see `dataset.find_all`.
      output: the folder to write, new or empty.
      options: only what computes is read.

    Returns:
      The content of evaluation.json.

    Raises:
      UsageError: unusable runs, images or folder, or no image is left.
    """
    folder = _place(source, output)
    examples = _find(source)
    options = options or Options()
    ensemble = Ensemble(runs, options.runtime, options.precision, len(examples))
    with ThreadPoolExecutor(parallel.cores()) as threads:
        digests = dict(zip((e.path for e in examples), threads.map(_digest, examples), strict=True))
    learned = Learned(ensemble.members)
    by_id = [e for e in examples if e.image_id in learned.image_ids]
    others = [e for e in examples if e.image_id not in learned.image_ids]
    known = learned.among({e.path: digests[e.path] for e in others})
    same = [e for e in others if e.path in known]
    used = [e for e in others if e.path not in known]
    _warn(by_id, same, used, learned)
    measured = _score(ensemble, used)
    images = measured.images
    summary = metrics.summarize(images, seed=0)
    sections = registry.summarize(measured, seed=0)
    first = ensemble.identity[0]
    report = {
        **summary,
        **sections,
        'step': first['step'],
        'thresholds': "the run's own; nothing was chosen on these images",
        'external': {
            'input': os.path.abspath(source),
            'digest': _digest_of_all(used, digests),
            'networks': ensemble.identity,
            'rule': dataclasses.asdict(ensemble.rule),
            'probability': ensemble.stated_calibration,
            'runtime': ensemble.runtime,
            'version': __version__,
            'left_out': {'same_image_id': len(by_id), 'same_file': len(same)},
            'compared_with': learned.description,
            'patients': _patients(used),
            'patients_trained_on': len(learned.patients & _named(used)),
        },
    }
    name = ' + '.join(dict.fromkeys(member['name'] for member in ensemble.identity))
    title = f'{name}: {len(images)} images from elsewhere'
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.new_folder(folder) as unfinished:
        written = Run(unfinished)
        written.write_text('per_image.csv', per_image.to_csv(images, with_patients=True))
        if measured.lesions:
            table = per_lesion.to_csv(measured.lesions, images.image_ids)
            written.write_text('per_lesion.csv', table)
        cases = _cases(ensemble, [used[i] for i in pictures.choose_cases(images)])
        sheet = written / 'contact_sheet.png'
        pictures.draw_contact_sheet(sheet, cases, ensemble.rule, title)
        pictures.write_image_level(written, images, sections, title)
        pictures.write_froc(written, sections)
        pictures.write_subgroups(written, sections.get('subgroups', {}))
        written.write_json('evaluation.json', report)
        run_report.write_external(written, name)
    for key, label in METRIC_NAMES.items():
        print(f'{label:42}{value_and_interval(report[key])}')
    log.info('%d images scored under the rule of %s; see %s', len(images), runs[0].path, folder)
    return report


def _place(source: str, output: str) -> pathlib.Path:
    """The folder to write, which is new or empty, and not among the images."""
    folder = pathlib.Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f'--output: {output} is not empty; give a new or empty folder')
    if folder.resolve().is_relative_to(pathlib.Path(source).resolve()):
        raise UsageError(f'--output: {output} lies in --input; give a folder elsewhere')
    return folder


def _find(source: str) -> list[Example]:
    try:
        return list(dataset_lib.find_all(source))
    except UsageError as error:  # it names the keys of a training's data
        raise UsageError(str(error).replace('config.data.root', '--input')) from None


def _digest(example: Example) -> str:
    try:
        with open(example.path, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise UsageError(
            f'ImageId {example.image_id}: {example.path} cannot be read: {error.strerror}'
        ) from None


def _digest_of_all(examples: Sequence[Example], digests: dict[str, str]) -> str:
    """Of names, files and masks, wherever the folder is."""
    lines = [
        '\t'.join((e.image_id, digests[e.path], '|'.join(e.rles), e.patient_id)) + '\n'
        for e in examples
    ]
    return hashlib.sha256(''.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()


def _warn(
    by_id: Sequence[Example], same: Sequence[Example], used: Sequence[Example], learned: Learned
) -> None:
    if by_id:
        log.warning(
            '%d images have the ImageId of one that the run was trained or calibrated on and are '
            'left out, the first is %s; if they are other images, rename the files',
            len(by_id), by_id[0].image_id,
        )  # fmt: skip
    if same:
        log.warning(
            '%d images are files that the run was trained or calibrated on, by other names, and '
            'are left out; the first is %s',
            len(same), same[0].path,
        )  # fmt: skip
    if not used:
        raise UsageError(
            f'--input: the run was trained or calibrated on all {len(by_id) + len(same)} images, '
            'so none is left to evaluate it on'
        )
    if not learned.is_complete:
        log.warning(
            'not all is known of what the run learned from, so some of it may be among these '
            'images: %s',
            learned.description,
        )
    shared = len(learned.patients & _named(used))
    if shared:
        log.warning(
            '%d patients have the PatientId of one that the run was trained or calibrated on; if '
            'they are the same people, the figures are too good',
            shared,
        )


def _score(ensemble: Ensemble, examples: Sequence[Example]) -> Measured:
    """Predicts the images, applies the rule, and then compares with the true masks."""
    of = {e.image_id: e for e in examples}
    spacing = measure.spacings(examples)
    spacing_of = dict(zip(of, spacing, strict=True))
    unit = measure.unit_of([e.positive for e in examples], spacing)

    def finish(loaded: Loaded, squares: Squares) -> dict[str, Any]:
        case = _case(ensemble, of[loaded.item.name], loaded, squares)
        predicted = rules.apply(ensemble.rule, case.probability)
        row = None
        if case.true.any() or predicted.any():
            level = levels.of(case.probability)
            row = measure.one(predicted, case.true, level, spacing_of[loaded.item.name], unit)
        return loaded.row | {
            'measured': row,
            'dice': metrics.dice(predicted, case.true),
            'true_px': int(np.count_nonzero(case.true)),
            'predicted_px': int(np.count_nonzero(predicted)),
            'score': metrics.image_score(case.probability),
            'pixels': case.true.size,
        }

    rows = list(bar(_rows(ensemble, examples, finish), 'evaluate', len(examples), unit='image'))
    columns = {
        name: np.array([row[name] for row in rows])
        for name in ('dice', 'true_px', 'predicted_px', 'score', 'pixels')
    }
    pixels = columns.pop('pixels')
    ids, patients = [e.image_id for e in examples], [e.patient_id for e in examples]
    calibration = ensemble.calibration
    probability = None if calibration is None else calibration(columns['score'])
    images = per_image.PerImage(ids, patients, **columns, probability=probability)
    found = {i: row['measured'] for i, row in enumerate(rows) if row['measured']}
    groups = subgroups.find(examples, images.true_px, pixels)
    return measure.add(images, found, spacing, unit)._replace(groups=groups)


def _cases(ensemble: Ensemble, examples: Sequence[Example]) -> Iterator[pictures.Case]:
    of = {e.image_id: e for e in examples}

    def finish(loaded: Loaded, squares: Squares) -> dict[str, Any]:
        return loaded.row | {'case': _case(ensemble, of[loaded.item.name], loaded, squares)}

    for row in _rows(ensemble, examples, finish):
        yield row['case']


def _rows(ensemble: Ensemble, examples: Sequence[Example], finish: Any) -> Iterator[dict[str, Any]]:
    items = [Item(e.path, e.path, e.image_id) for e in examples]
    # The masks say what the images are good for, so tags refuse none.
    for row in predicted_rows(ensemble, items, finish, accept='any'):
        if row['status'] != 'ok':
            raise UsageError(f'ImageId {row["ImageId"]}: {row["file"]}: {row["reason"]}')
        yield row


def _case(ensemble: Ensemble, example: Example, loaded: Loaded, squares: Squares) -> pictures.Case:
    radiograph = loaded.radiograph
    assert radiograph is not None  # only what was read is predicted
    shape = radiograph.image.shape
    example_lib.check_shape(example, shape)
    probability, _ = ensemble.probability(loaded.squares, squares, shape, radiograph.aspect)
    true = example_lib.draw(example, shape)
    return pictures.Case(example.image_id, radiograph.image, true, probability)


def _named(examples: Sequence[Example]) -> set[str]:
    """The patients that the data set names."""
    return {e.patient_id for e in examples if e.patient_id != e.image_id}


def _patients(examples: Sequence[Example]) -> str:
    if not _named(examples):
        return 'not stated; each image counts as one'
    return f'{len({e.patient_id for e in examples})}, as the data set states'
