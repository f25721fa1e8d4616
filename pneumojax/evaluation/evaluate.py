"""Evaluates a trained run on the images it held out, and chooses the thresholds for using it.

Probabilities are mapped back to each image's original size and compared with its exact official
mask. The rule that turns them into masks is chosen by the competition's Dice on four fifths of the
held-out patients and scored on the rest, five times, so no metric is measured on images that its
rule was chosen on. `folds.evaluate` does the same for a k-fold training.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from pneumojax.data import rle
from pneumojax.data.dataset import Dataset
from pneumojax.data.datasets import splits
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.evaluation import (
    image_probability,
    levels,
    measure,
    metrics,
    model_card,
    per_image,
    per_lesion,
    pictures,
    risk,
    run_report,
    scores,
    thresholds,
)
from pneumojax.evaluation.checklists import reporting
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.results import Evaluation, Result
from pneumojax.evaluation.scores import Scores
from pneumojax.evaluation.sections import registry, subgroups
from pneumojax.evaluation.sections.section import Measured
from pneumojax.models import build
from pneumojax.runs.run import Run
from pneumojax.system import atomic
from pneumojax.system.progress import log

PARTS = 5  # of the held-out patients, for choosing and scoring the rule


def evaluate(config: ml_collections.ConfigDict, run: Run, *, keep: bool = False) -> dict[str, Any]:
    """Evaluates a run on its validation images and writes the results.

    Writes evaluation.json, per_image.csv, per_lesion.csv, thresholds.json, scores.npz, levels.zip,
    model_card.md, reporting.md, report.html and its pictures.

    Args:
      config: the run's configuration; `evaluation` and `tta` may differ from what it trained with.
      run: a trained run.
      keep: see `scores.of_run`.

    Returns:
      The content of evaluation.json.

    Raises:
      UsageError: nothing is trained yet, or the data set is not the one trained on.
    """
    trained = scores.load_trained(config, run)
    scored = scores.of_run(trained, keep=keep)
    patients = [trained.dataset.examples[i].patient_id for i in trained.dataset.validation]
    parts = assign_parts(config, next(iter(scored.values())), patients)
    chosen = list(scored)[-1]
    kept = scores.read_levels(trained, chosen)
    results = {
        variant: evaluate_variant(
            config, one, trained.dataset, parts, kept.__getitem__ if variant == chosen else None
        )
        for variant, one in scored.items()
    }

    def predict(indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        variables = run.checkpoints.load_variables(
            trained.step, build.variable_shapes(config), averaged=chosen.averaged
        )
        return scores.Predictor(config, chosen.flips)(variables, trained.dataset, indices)

    about = f'cross-fitted in {PARTS} parts: never chosen on images they are judged on'
    return write(run, Evaluation(
        config, trained.dataset, results, predict, run.metrics(), trained.step,
        about={'thresholds': about},
        digest=run.checkpoints.weights_digest(trained.step, averaged=chosen.averaged),
    ))  # fmt: skip


def assign_parts(
    config: ml_collections.ConfigDict, scored: Scores, patients: Sequence[str]
) -> np.ndarray:
    """int [N]: the part of each image for `thresholds.cross_fit`, the same for every variant.

    Raises:
      UsageError: there is only one patient.
    """
    count = min(PARTS, len(set(patients)))
    if count < 2:
        raise UsageError(
            'config.data.num_folds: one held-out patient is too few to choose thresholds on some '
            'images and score them on others; use fewer folds or more images'
        )
    return splits.assign_folds(scored.true_px > 0, patients, count, config.data.split_seed)


def evaluate_variant(
    config: ml_collections.ConfigDict,
    scored: Scores,
    dataset: Dataset,
    parts: np.ndarray,
    levels_of: Callable[[int], np.ndarray] | None = None,
) -> Result:
    """Metrics of one variant, each part under the rule that the other parts chose.

    Args:
      config: `evaluation` and `seed` are read.
      scored: N images.
      dataset: its N validation images were scored.
      parts: int [N], see `thresholds.cross_fit`.
      levels_of: see `levels.of`, of each image; with it, outlines and lesions are measured too.
    """
    examples = [dataset.examples[i] for i in dataset.validation]
    numbers = np.unique([example.patient_id for example in examples], return_inverse=True)[1]
    scored = dataclasses.replace(scored, patients=numbers)
    settings = config.evaluation
    fitted = thresholds.cross_fit(scored, parts, settings.rule, miss=settings.miss)
    images = PerImage(
        image_ids=[example.image_id for example in examples],
        patients=[example.patient_id for example in examples],
        dice=fitted.dice,
        true_px=scored.true_px,
        predicted_px=fitted.predicted_px,
        score=scored.score,
        probability=image_probability.cross_fit(scored.score, scored.true_px > 0, parts),
    )
    summary = metrics.summarize(images, seed=config.seed, samples=config.evaluation.bootstrap)
    if levels_of is None:
        return Result(summary, images, scored)

    def masks_of(i: int) -> measure.Masks:
        level = levels_of(i)
        predicted = levels.mask(fitted.rules[parts[i]], level)
        true = rle.decode_all(examples[i].rles, level.shape)
        if np.count_nonzero(predicted) != images.predicted_px[i]:
            raise UsageError(
                f'{levels.FILE} does not fit {scores.FILE} for ImageId {examples[i].image_id}; '
                'delete both files, and the run is evaluated anew'
            )
        return predicted, true, level

    measured = measure.of_images(images, measure.spacings(examples), masks_of)
    return Result(summary, measured.images, scored, measured)


def write(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Writes every file of an evaluation.

    Args:
      run: the directory to write in.
      evaluation: the results.

    Returns:
      The content of evaluation.json.
    """
    atomic.sweep(run.path)
    config, results = evaluation.config, evaluation.results
    chosen, result = list(results.items())[-1]
    settings = config.evaluation
    rule, calibrated_dice = thresholds.search(result.scores, settings.rule, miss=settings.miss)
    if rule.marks_nothing:
        log.warning(
            'no rule is better on the held-out images than leaving every image empty, so that is '
            'the rule in thresholds.json; --config.evaluation.rule=half marks every pixel from 0.5'
        )
    calibration = image_probability.fit(result.images.score, result.images.positive)
    if result.images.probability is None:
        log.warning(
            'image probabilities are not calibrated: that needs images with and without '
            'pneumothorax in every part of the held-out patients'
        )
        calibration = None
    weights = {
        'weights': 'average' if chosen.averaged else 'last',
        'flips': list(chosen.flips),
        'step': evaluation.step,
    }
    run.write_json('thresholds.json', {
        **dataclasses.asdict(rule),
        'kind': config.evaluation.rule,
        'search': thresholds.SEARCH_VERSION,
        'metric': 'mean Dice, 1 where both masks are empty',
        'calibrated_dice': calibrated_dice,
        'images': len(result.images),
        'positives': int(result.images.positive.sum()),
        'data': {'fold': config.data.fold, 'num_folds': config.data.num_folds},
        'image_size': config.image_size,
        'judged_at': 'the original image size',
        'probability': dataclasses.asdict(calibration) if calibration else None,
        **({'risk': risk.guarantee(result.scores, rule, settings.miss)}
           if settings.rule == 'risk' else {}),
        **weights,
        **({'digest': evaluation.digest} if evaluation.digest else {}),
    })  # fmt: skip
    run.write_text('per_image.csv', per_image.to_csv(result.images))
    if result.measured and result.measured.lesions:
        lesions = per_lesion.to_csv(result.measured.lesions, result.images.image_ids)
        run.write_text('per_lesion.csv', lesions)
    title = f'{config.name}: {len(result.images)} held-out images, {config.image_size} px'
    pictures.write_curves(run, result, rule, title, evaluation.history)
    pictures.write_contact_sheet(run, evaluation, rule, title)
    pictures.write_calibration(run, result.scores)
    dataset = evaluation.dataset
    held_out = [dataset.examples[i] for i in dataset.validation]
    groups = subgroups.find(held_out, result.images.true_px, result.scores.pixels, settings.groups)
    measured = (result.measured or Measured(result.images))._replace(groups=groups)
    sections = registry.summarize(measured, seed=config.seed, samples=settings.bootstrap)
    pictures.write_image_level(run, result.images, sections, title)
    pictures.write_froc(run, sections)
    pictures.write_subgroups(run, sections.get('subgroups', {}))
    variants = {
        variant.label: {name: one.summary[name] for name in metrics.METRICS}
        for variant, one in results.items()
    }
    trained_on = {
        'n': len(dataset.train),
        'n_positive': int(dataset.positive[dataset.train].sum()),
    }
    report = {
        **result.summary,
        **sections,
        # A k-fold training has no images of its own to train on.
        **({'trained_on': trained_on} if trained_on['n'] else {}),
        **({'phantoms': True} if phantom.are_in(config.data) else {}),
        'data': _describe(dataset),
        **weights,
        **evaluation.about,
        'variants': variants,
    }
    run.write_json('evaluation.json', report)  # last: all of the above is of this checkpoint
    model_card.write(run)
    reporting.write(run)
    run_report.write(run)
    return report


def _describe(dataset: Dataset) -> dict[str, Any]:
    """What masks there are, who assigned the sides, and how many patients are on each.

    'masks' is None where no image has one, 'patients' where the data set names none.
    """
    examples = dataset.examples
    masks = None
    if dataset.positive.any():
        masks = 'files' if any(e.mask_shape for e in examples) else 'run-length codes'
    named = any(e.patient_id != e.image_id for e in examples)
    patients = {
        side: len({examples[i].patient_id for i in rows})
        for side, rows in (('trained_on', dataset.train), ('held_out', dataset.validation))
    }
    return {
        'masks': masks,
        'split': 'table' if examples[0].side else 'drawn',
        'patients': patients if named else None,
    }
