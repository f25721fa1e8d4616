"""Whether one run is better than another on the same images: paired differences with intervals.

Two intervals that overlap say little, because both runs find the same images hard. So the
difference itself is resampled, paired image by image, whole patients at a time.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from pneumojax.config import ALL_FOLDS
from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics
from pneumojax.evaluation.per_image import PerImage, read_csv
from pneumojax.evaluation.sections.registry import SECTIONS
from pneumojax.evaluation.statistics import bootstrap
from pneumojax.evaluation.wording import METRIC_NAMES
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system import text


def difference(
    ours: Sequence[PerImage],
    theirs: Sequence[PerImage],
    *,
    seed: int,
    samples: int = bootstrap.SAMPLES,
    wanted: Mapping[str, metrics.Metric] = metrics.METRICS,
) -> dict[str, dict[str, float | None]]:
    """Ours minus theirs in every metric, with 95 % percentile bootstrap intervals.

    Both methods are measured on the same resamples of patients. With several seeds of training,
    metrics are means over seeds, seed s of one method is paired with seed s of the other, and seeds
    are resampled together with patients, independently of them (Owen 2007, the pigeonhole
    bootstrap). The interval then covers other patients and other trainings alike. With few seeds
    it is somewhat too short, by about (S - 1) / S in the seeds' share of the variance.

    Args:
      ours, theirs: the results of two methods on the same images, one table for each of S seeds.
      seed: of the bootstrap.
      samples: resamples.
      wanted: the metrics.

    Returns:
      {name: {'first', 'second', 'difference', 'low', 'high'}} for each name in `wanted`, ours
      first; None where undefined.

    Raises:
      ValueError: the images, their true masks, their patients or the numbers of seeds differ.

    References:
      Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1.
    """
    patients, seeds = ours[0].patients, len(ours)
    if len(theirs) != seeds or not all(_same_images(ours[0], other) for other in (*ours, *theirs)):
        raise ValueError(f'results of the same {len(ours[0])} images and {seeds} seeds expected')

    def measure(side: Sequence[PerImage], weights: np.ndarray | None = None) -> np.ndarray:
        """float64 [seeds, samples, metrics]."""
        return np.stack([metrics.compute(images, weights, wanted) for images in side])

    rng, drawn = np.random.default_rng(seed), []
    for weights in bootstrap.resamples(rng, patients, samples):
        times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(weights))
        gap = measure(ours, weights) - measure(theirs, weights)
        drawn.append(np.einsum('bs,sbf->bf', times / seeds, gap))
    whole = [measure(side)[:, 0].mean(axis=0) for side in (ours, theirs)]
    result = {}
    for name, a, b, column in zip(wanted, *whole, np.concatenate(drawn).T, strict=True):
        low, high = bootstrap.interval(a - b, column)
        values = {'first': a, 'second': b, 'difference': a - b}
        result[name] = {
            **{key: metrics.number(value) for key, value in values.items()},
            'low': low,
            'high': high,
        }
    return result


def _same_images(one: PerImage, other: PerImage) -> bool:
    columns = ('image_ids', 'patients', 'true_px')
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


def compare(config: ml_collections.ConfigDict | None, run: Run, other: str) -> dict[str, Any]:
    """Compares two evaluations and prints the differences, run minus other.

    Only files are read: both must have been evaluated. The result is added to the run's
    comparisons.json.

    Args:
      config: the run's; its data set says which images are of the same patient. None for an
        external evaluation, whose per_image.csv says so itself.
      run: an evaluated run, with folds or without, or the folder of an external evaluation.
      other: another evaluated run or folder, or any CSV with per_image.csv's columns.

    Returns:
      What comparisons.json holds under the name of the other.

    Raises:
      UsageError: one is not evaluated, they share no image, their true masks differ, or the run was
        trained with another configuration.
    """
    if config is not None:
        run.require_config(config)
    ours, theirs = read_csv(run.path), read_csv(pathlib.Path(other))
    everything = len(ours) + len(theirs)
    ours, theirs = _shared_images(ours, theirs, (str(run.path), other))
    patients, seed, samples = ours.patients, 0, bootstrap.SAMPLES
    if config is not None:
        patients = _patients(config, ours.image_ids)
        seed, samples = config.seed, config.evaluation.bootstrap
    ours, theirs = (dataclasses.replace(side, patients=patients) for side in (ours, theirs))

    def differences(wanted: Mapping[str, metrics.Metric]) -> dict[str, Any]:
        return difference([ours], [theirs], seed=seed, samples=samples, wanted=wanted)

    report = {
        **differences(metrics.METRICS),
        **{
            section.key: differences(section.metrics)
            for section in SECTIONS
            if section.metrics and section.is_known(ours) and section.is_known(theirs)
        },
        'n': len(ours),
        'n_positive': int(ours.positive.sum()),
    }
    path = run / 'comparisons.json'
    earlier = run.read_json(path.name) if path.exists() else {}
    run.write_json(path.name, earlier | {str(other): report})
    left_out = everything - 2 * len(ours)
    print(table(report, run.path.name, pathlib.Path(other).name))
    print(
        f'on the {len(ours)} images that both evaluated, {report["n_positive"]} with a pneumothorax'
        + (f' ({left_out} that only one evaluated are left out)' if left_out else '')
        + '; 95 % paired bootstrap intervals over patients'
    )
    return report


def _patients(config: ml_collections.ConfigDict, image_ids: Sequence[str]) -> list[str]:
    if config.data.fold == ALL_FOLDS:  # any of them has all images
        config = layout.fold_config(config, 0)
    patient_of = {text.cell(e.image_id): e.patient_id for e in dataset_lib.examples(config)}
    return [patient_of.get(image_id, image_id) for image_id in image_ids]


def _shared_images(
    ours: PerImage, theirs: PerImage, names: tuple[str, str]
) -> tuple[PerImage, PerImage]:
    """The images that are in both tables, in the order of the first. UsageError if there are none,
    or if their true masks differ."""
    row_of = {image_id: row for row, image_id in enumerate(theirs.image_ids)}
    rows = [row for row, image_id in enumerate(ours.image_ids) if image_id in row_of]
    if not rows:
        raise UsageError(f'--compare: {names[0]} and {names[1]} have no image in common')
    ours = ours.take(rows)
    theirs = theirs.take([row_of[image_id] for image_id in ours.image_ids])
    for image_id, px, other_px in zip(ours.image_ids, ours.true_px, theirs.true_px, strict=True):
        if px != other_px:
            raise UsageError(
                f'--compare: {image_id} has {px} px in its true mask in {names[0]}, but {other_px} '
                f'in {names[1]}; they are not of the same data set at its original size'
            )
    return ours, theirs


def table(report: dict[str, Any], ours: str, theirs: str) -> str:
    """The differences as text, one metric a line.

    Args:
      report: of `compare`.
      ours, theirs: names of the two, for the head of the table.
    """
    width = max(12, len(ours), len(theirs)) + 2
    lines = [f'{"":42}{ours:>{width}}{theirs:>{width}}{"difference":>12}{"95 %":>18}']
    known = [section for section in SECTIONS if section.key in report]
    for title, names, rows in (
        ('', METRIC_NAMES, report),
        *((section.title, section.names, report[section.key]) for section in known),
    ):
        lines += ['', title] if title else []
        for name, label in names.items():
            row = rows[name]
            if row['difference'] is None or name == 'all_empty_dice':  # the same for both
                continue
            interval = '' if row['low'] is None else f'{row["low"]:+.4f} {row["high"]:+.4f}'
            lines.append(
                f'{label:42}{row["first"]:>{width}.4f}{row["second"]:>{width}.4f}'
                f'{row["difference"]:>+12.4f}{interval:>18}'
            )
    return '\n'.join(lines)
