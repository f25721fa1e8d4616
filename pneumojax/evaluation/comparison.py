"""Whether one run is better than another on the same images: paired differences with intervals.

Two intervals that overlap say little: both runs find the same images hard. So the difference itself
is resampled, image by image paired, whole patients at a time.
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pneumojax.config import ALL_FOLDS
from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics
from pneumojax.evaluation.wording import FIGURES
from pneumojax.runs import layout
from pneumojax.runs.run import Run


class Judgement(NamedTuple):
    """What one method made of N images, [N] each; or of the same images under S seeds, [S, N]."""

    dice: Any  # float64
    predicted_px: Any  # int64
    probability: Any  # float64, image-level score


def difference(
    first: Judgement,
    second: Judgement,
    true_px: Sequence[int],
    *,
    seed: int,
    patients: Sequence[str] | None = None,
    samples: int = 2000,
) -> dict[str, dict[str, float | None]]:
    """First minus second in every figure, with 95 % percentile bootstrap intervals.

    Both methods are measured on the same resamples of patients. Where there are several seeds, the
    figures are means over seeds, seed s of one method is paired with seed s of the other, and seeds
    are resampled together with patients, independently of them (Owen 2007, the pigeonhole
    bootstrap): the interval is then about other patients and other trainings alike. With few seeds
    it is somewhat too short on their side, by about (S - 1) / S in their share of the variance.

    Args:
      first, second: their judgements, of equal shape.
      true_px: [N] pixels in the true mask; positive means more than 0.
      seed: of the bootstrap.
      patients: [N] whose image it is; None: every image is a patient of its own.
      samples: resamples.

    Returns:
      {name: {'first', 'second', 'difference', 'low', 'high'}} for each name in `metrics.NAMES`;
      None where undefined.

    Raises:
      ValueError: shapes differ.

    References:
      Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1.
    """
    sides = [[np.atleast_2d(np.asarray(column)) for column in side] for side in (first, second)]
    shape, positive = sides[0][0].shape, np.asarray(true_px) > 0
    lengths = {len(positive), len(positive if patients is None else patients)}
    if {c.shape for side in sides for c in side} != {shape} or lengths != {shape[1]}:
        raise ValueError(f'judgements of the same {shape[1]} images and seeds expected')
    groups = (
        np.arange(shape[1]) if patients is None else np.unique(patients, return_inverse=True)[1]
    )

    def measure(side, weights):  # [seeds, resamples, figures]
        dice, predicted_px, probability = side
        rows = zip(dice, predicted_px > 0, probability, strict=True)
        return np.stack([metrics.figures(weights, d, positive, m, p) for d, m, p in rows])

    whole = [measure(side, np.ones((1, shape[1])))[:, 0].mean(axis=0) for side in sides]
    rng, drawn = np.random.default_rng(seed), []
    for weights in metrics.resamples(rng, groups, samples):
        times = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=len(weights))
        gap = measure(sides[0], weights) - measure(sides[1], weights)
        drawn.append(np.einsum('bs,sbf->bf', times / shape[0], gap))
    result = {}
    for name, a, b, column in zip(metrics.NAMES, *whole, np.concatenate(drawn).T, strict=True):
        column = column[np.isfinite(column)]
        known = column.size > 0 and np.isfinite(a - b)
        low, high = np.percentile(column, [2.5, 97.5]) if known else (np.nan, np.nan)
        values = {'first': a, 'second': b, 'difference': a - b, 'low': low, 'high': high}
        result[name] = {k: float(v) if np.isfinite(v) else None for k, v in values.items()}
    return result


def compare(config, run: Run, other: str) -> dict[str, Any]:
    """Compares two evaluations and prints the differences, run minus other.

    Only files are read: both must have been evaluated. The result is added to the run's
    comparisons.json.

    Args:
      config: the run's; its data set says which images are one patient's.
      run: an evaluated run, with folds or without.
      other: another evaluated run directory, or any CSV with per_image.csv's columns.

    Returns:
      What comparisons.json holds under the name of the other.

    Raises:
      UsageError: not evaluated, no image in common, or other true masks.
    """
    mine, theirs = read(run.path), read(pathlib.Path(other))
    ids = [image_id for image_id in mine if image_id in theirs]
    if not ids:
        raise UsageError(f'--compare: {run.path} and {other} have no image in common')
    for image_id in ids:
        if mine[image_id]['true_px'] != theirs[image_id]['true_px']:
            raise UsageError(
                f'--compare: {image_id} has {mine[image_id]["true_px"]} px in its true mask in '
                f'{run.path}, but {theirs[image_id]["true_px"]} in {other}; they are not of the '
                'same data set at its original size'
            )
    if config.data.fold == ALL_FOLDS:  # any of them has all images
        config = layout.fold_config(config, 0)
    patient = {e.image_id: e.patient_id for e in dataset_lib.examples(config)}
    true_px = [mine[image_id]['true_px'] for image_id in ids]
    ours, others = (
        Judgement(*([side[i][name] for i in ids] for name in Judgement._fields))
        for side in (mine, theirs)
    )
    found = difference(
        ours, others, true_px, seed=config.seed, samples=config.evaluation.bootstrap,
        patients=[patient.get(image_id, image_id) for image_id in ids],
    )  # fmt: skip
    report = {**found, 'n': len(ids), 'n_positive': sum(px > 0 for px in true_px)}
    path = run / 'comparisons.json'
    before = run.read_json(path.name) if path.exists() else {}
    run.write_json(path.name, before | {str(other): report})
    left_out = len(mine) + len(theirs) - 2 * len(ids)
    print(table(report, run.path.name, pathlib.Path(other).name))
    print(
        f'on {len(ids)} images that both judged, {report["n_positive"]} with a pneumothorax'
        + (f' ({left_out} that only one judged are left out)' if left_out else '')
        + '; 95 % paired bootstrap intervals over patients'
    )
    return report


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The rows of a per_image.csv by ImageId. UsageError when it is missing or broken."""
    file = path / 'per_image.csv' if path.is_dir() else path
    try:
        with file.open(newline='') as text:
            return {
                row['ImageId']: {
                    'dice': float(row['dice']),
                    'true_px': int(row['true_px']),
                    'predicted_px': int(row['predicted_px']),
                    'probability': float(row['probability']),
                }
                for row in csv.DictReader(text)
            }
    except OSError:
        raise UsageError(f'{file} cannot be read; run --mode=evaluate on that run first') from None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{file} is no per_image.csv ({error}); expected the columns ImageId, dice, true_px, '
            'predicted_px, probability'
        ) from None


def table(report: dict[str, Any], first: str, second: str) -> str:
    """The differences as text, one figure a line."""
    width = max(12, len(first), len(second)) + 2
    lines = [f'{"":42}{first:>{width}}{second:>{width}}{"difference":>12}{"95 %":>18}']
    for name, label in FIGURES.items():
        row = report[name]
        if row['difference'] is None or name == 'all_empty_dice':  # the same for both
            continue
        interval = '' if row['low'] is None else f'{row["low"]:+.4f} {row["high"]:+.4f}'
        lines.append(
            f'{label:42}{row["first"]:>{width}.4f}{row["second"]:>{width}.4f}'
            f'{row["difference"]:>+12.4f}{interval:>18}'
        )
    return '\n'.join(lines)
