"""What a trained run is worth, on the images it held out; and the thresholds for using it.

Probabilities are mapped back to each image's original size and compared with its exact official
mask. The rule that turns them into masks is chosen by the competition's Dice on four fifths of the
held-out patients and judged on the rest, five times, so no figure is measured on images that its
rule was chosen on. A k-fold training is judged by `folds.evaluate`.
"""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pneumojax.data import dataset as dataset_lib
from pneumojax.data.dataset import Dataset
from pneumojax.data.datasets import splits
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics, model_card, pictures, run_report, scores, thresholds
from pneumojax.evaluation.scores import Scores, Variant
from pneumojax.models import build
from pneumojax.runs.run import Run

PARTS = 5  # of the held-out patients, for choosing and judging the rule


class Judged(NamedTuple):
    """One variant's figures, with what they were computed from."""

    summary: dict[str, Any]
    dice: np.ndarray  # float64 [N], cross-fitted
    predicted_px: np.ndarray  # int64 [N], cross-fitted
    scores: Scores


def evaluate(config, run: Run, *, keep: bool = False) -> dict[str, Any]:
    """Evaluates a run on its validation images and writes its figures.

    Writes evaluation.json, per_image.csv, thresholds.json, scores.npz, model_card.md, report.html
    and its pictures.

    Args:
      config: the run's configuration; `evaluation` and `tta` may differ from what it trained with.
      run: a trained run.
      keep: see `scores.of_run`.

    Returns:
      The content of evaluation.json.

    Raises:
      UsageError: nothing trained yet, or a data set other than the one trained on.
    """
    dataset, step = held_out(config, run)
    patients = [dataset.examples[i].patient_id for i in dataset.validation]
    scored = scores.of_run(config, run, dataset, step, keep=keep)
    parts = _parts(config, scored, patients)
    results = {v: judge(config, s, patients, parts) for v, s in scored.items()}
    chosen = list(results)[-1]

    def predict(indices):
        variables = run.checkpoints.load_variables(
            step, build.variable_shapes(config), averaged=chosen.averaged
        )
        return scores.Predictor(config, chosen.flips)(variables, dataset, indices)

    return write_figures(
        config, run, dataset, results, predict, run.metrics(),
        step=step,
        thresholds=f'cross-fitted in {PARTS} parts: never chosen on images they are judged on',
    )  # fmt: skip


def held_out(config, run: Run) -> tuple[Dataset, int]:
    """The data that a trained run was split over, and the step of its newest checkpoint."""
    step = run.checkpoints.latest_step()
    if step is None:
        raise UsageError(
            f'{run.path} has no checkpoint to evaluate; train it first: '
            f'python -m pneumojax.main --config=... --workdir={run.path}'
        )
    dataset = dataset_lib.load(config)
    if run.read_json('split.json') != dataset.split_ids():
        raise UsageError(
            f'{run.path} was trained on another split (split.json) than config.data gives now; '
            'evaluating it would report images it was trained on'
        )
    return dataset, step


def _parts(config, scored: Mapping[Variant, Scores], patients: Sequence[str]) -> np.ndarray:
    """int [N]: the part of each image, the same for every variant."""
    count = min(PARTS, len(set(patients)))
    if count < 2:
        raise UsageError(
            'config.data.num_folds: one held-out patient is too few to choose thresholds on some '
            'images and judge them on others; use fewer folds or more images'
        )
    positive = next(iter(scored.values())).true_px > 0
    return splits.assign_folds(positive, patients, count, config.data.split_seed)


def judge(config, scored: Scores, patients: Sequence[str], parts: np.ndarray) -> Judged:
    """Figures of one variant, each part under the rule that the other parts chose.

    Args:
      config: `evaluation` and `seed` are read.
      scored: N images.
      patients: [N], whose they are; the intervals resample patients.
      parts: int [N], see `thresholds.cross_fit`.
    """
    fitted = thresholds.cross_fit(
        scored.histograms, scored.pixels, parts, scored.regions, kind=config.evaluation.rule
    )
    summary = metrics.summarize(
        fitted.dice, scored.true_px, fitted.predicted_px, scored.probability,
        seed=config.seed, patients=patients, samples=config.evaluation.bootstrap,
    )  # fmt: skip
    return Judged(summary, fitted.dice, fitted.predicted_px, scored)


def write_figures(
    config,
    run: Run,
    dataset: Dataset,
    results: Mapping[Variant, Judged],
    predict: Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]],
    history: list[dict[str, Any]],
    *,
    step: int,
    **about: Any,
) -> dict[str, Any]:
    """Writes every file of an evaluation.

    Args:
      config: of the run, or of the last stage of each of its folds.
      run: the directory to write in.
      dataset: its validation images were judged.
      results: the last one is the run's own figure.
      predict: from indices to (index, probabilities at the original size), for the pictures.
      history: lines of metrics.jsonl, for the learning curves.
      step: of the checkpoint that was judged.
      **about: more to say in evaluation.json.

    Returns:
      The content of evaluation.json.
    """
    chosen, judged = list(results.items())[-1]
    weights = {
        'weights': 'average' if chosen.averaged else 'last',
        'flips': list(chosen.flips),
        'step': step,
    }
    rule, calibrated_dice = thresholds.search(
        judged.scores.histograms,
        judged.scores.pixels,
        judged.scores.regions,
        kind=config.evaluation.rule,
    )
    run.write_json('thresholds.json', {
        **dataclasses.asdict(rule),
        'kind': config.evaluation.rule,
        'metric': 'mean Dice, 1 where both masks are empty',
        'calibrated_dice': calibrated_dice,
        'images': len(judged.dice),
        'positives': int((judged.scores.true_px > 0).sum()),
        'data': {'fold': config.data.fold, 'num_folds': config.data.num_folds},
        'image_size': config.image_size,
        'judged_at': 'the original image size',
        **weights,
    })  # fmt: skip
    figures = {v.label: {n: j.summary[n] for n in metrics.NAMES} for v, j in results.items()}
    report = {**judged.summary, **weights, **about, 'variants': figures}
    write_per_image(run, dataset, judged)
    title = f'{config.name}: {len(judged.dice)} held-out images, {config.image_size} px'
    pictures.write_curves(run, judged, rule, title, history)
    pictures.write_contact_sheet(run, dataset, judged, rule, predict, title)
    pictures.write_calibration(run, judged)
    run.write_json('evaluation.json', report)  # says that all above is of this checkpoint
    model_card.write(run)
    run_report.write(run)
    return report


def write_per_image(run: Run, dataset: Dataset, judged: Judged) -> None:
    """per_image.csv: one row per validation image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['ImageId', 'dice', 'true_px', 'predicted_px', 'probability'])
    columns = judged.dice, judged.scores.true_px, judged.predicted_px, judged.scores.probability
    for index, dice, true_px, predicted_px, p in zip(dataset.validation, *columns, strict=True):
        image_id = dataset.examples[index].image_id
        writer.writerow([image_id, f'{dice:.6f}', int(true_px), int(predicted_px), f'{p:.6f}'])
    run.write_text('per_image.csv', text.getvalue())
