"""What a trained run is worth, on the images it held out; and the thresholds for using it.

Probabilities are mapped back to each image's original size and compared with its exact official
mask. The rule that turns them into masks is chosen by the competition's Dice on four fifths of the
held-out patients and judged on the rest, five times, so no figure is measured on images that its
rule was chosen on.
"""

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pneumojax.data import dataset as dataset_lib
from pneumojax.data import geometry, pipeline, rle
from pneumojax.data.dataset import Dataset
from pneumojax.devices import Devices
from pneumojax.errors import UsageError
from pneumojax.inference import metrics, pictures, thresholds, tta
from pneumojax.models import build
from pneumojax.outputs import model_card, run_report
from pneumojax.progress import log
from pneumojax.run import Run

PARTS = 5  # of the held-out patients, for choosing and judging the rule


class Scores(NamedTuple):
    """What is kept of each image's probabilities, N images in the order of `Dataset.validation`."""

    histograms: np.ndarray  # int32 [N, 2, BINS], see thresholds.pixel_histogram
    pixels: np.ndarray  # int64 [N], height times width of the original
    probability: np.ndarray  # float64 [N], of the image, see metrics.image_probability

    @property
    def true_px(self) -> np.ndarray:
        return self.histograms[:, 1].sum(axis=1)


class Judged(NamedTuple):
    """One variant's figures, with what they were computed from."""

    summary: dict[str, Any]
    dice: np.ndarray  # float64 [N], cross-fitted
    predicted_px: np.ndarray  # int64 [N], cross-fitted
    scores: Scores


class Variant(NamedTuple):
    """Which weights, and which flips."""

    label: str
    averaged: bool
    flips: tuple[str, ...]


def evaluate(config, run: Run) -> dict[str, Any]:
    """Evaluates a run on its validation images and writes its figures.

    Writes evaluation.json, per_image.csv, thresholds.json, model_card.md, report.html and its
    pictures.

    Args:
      config: the run's configuration; `evaluation` and `tta` may differ from what it trained with.
      run: a trained run.

    Returns:
      The content of evaluation.json.

    Raises:
      UsageError: nothing trained yet, or a data set other than the one trained on.
    """
    step = run.latest_step()
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
    patients = [dataset.examples[i].patient_id for i in dataset.validation]
    shapes = build.variable_shapes(config)
    results, predictors = {}, {}
    for variant in variants(config, 'average_params' in run.items(step)):
        variables = run.load_variables(step, shapes, averaged=variant.averaged)
        if variant.flips not in predictors:
            predictors[variant.flips] = Predictor(config, variant.flips)
        scores = score(predictors[variant.flips], variables, variant.label, dataset)
        results[variant] = judge(config, scores, patients)
    chosen, judged = list(results.items())[-1]

    rule, calibrated_dice = thresholds.search(
        judged.scores.histograms, judged.scores.pixels, kind=config.evaluation.rule
    )
    run.write_json('thresholds.json', {
        **dataclasses.asdict(rule),
        'kind': config.evaluation.rule,
        'metric': 'mean Dice, 1 where both masks are empty',
        'calibrated_dice': calibrated_dice,
        'images': len(patients),
        'positives': int((judged.scores.true_px > 0).sum()),
        'data': {'fold': config.data.fold, 'num_folds': config.data.num_folds},
        'image_size': config.image_size,
        'judged_at': 'the original image size',
        'weights': 'average' if chosen.averaged else 'last',
        'flips': list(chosen.flips),
        'step': step,
    })  # fmt: skip
    report = {
        **judged.summary,
        'step': step,
        'weights': 'average' if chosen.averaged else 'last',
        'flips': list(chosen.flips),
        'thresholds': f'cross-fitted in {PARTS} parts: never chosen on images they are judged on',
        'variants': {
            v.label: {name: j.summary[name] for name in metrics.NAMES} for v, j in results.items()
        },
    }
    run.write_json('evaluation.json', report)
    write_per_image(run, dataset, judged)
    variables = run.load_variables(step, shapes, averaged=chosen.averaged)
    title = f'{config.name}: {len(patients)} held-out images, {config.image_size} px'
    pictures.write_curves(run, judged, rule, title)
    predictor = predictors[chosen.flips]
    pictures.write_contact_sheet(
        run, dataset, judged, rule, lambda i: predictor(variables, dataset, i), title
    )
    pictures.write_calibration(run, judged)
    model_card.write(run)
    run_report.write(run)
    return report


def variants(config, has_average: bool) -> list[Variant]:
    """What to score; the last one is the run's own figure, those before show what it gained."""
    flips = tuple(config.tta.flips)
    averaged = config.evaluation.weights == 'average' and has_average
    if config.evaluation.weights == 'average' and config.swa.kind != 'none' and not has_average:
        log.warning('the checkpoint has no averaged weights (not finished?): using the last')
    final = Variant('final', averaged, flips)
    if not config.evaluation.compare:
        return [final]
    steps = [Variant('last weights', False, ())]
    if averaged:
        steps.append(Variant('+ SWA', True, ()))
    if flips:
        steps.append(Variant('+ TTA', averaged, flips))
    return steps


class Predictor:
    """Probabilities of a data set's images, at their original sizes, compiled once.

    Args:
      config: a run's configuration.
      flips: see `tta.flip_axes`.
    """

    def __init__(self, config, flips: Sequence[str]):
        self.devices = Devices()
        self.batch_size = config.evaluation.batch_size
        function = tta.make_predict(config, build.make_model(config), flips)
        views = f'{config.image_size} px' + ', flipped too' * bool(flips)
        self.predict = self.devices.compile(function, f'the prediction ({views})')

    def __call__(
        self, variables, dataset: Dataset, indices: Sequence[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index, probabilities float32 [H, W] at the original size) for each index."""
        variables = self.devices.replicate(variables)
        size = -(-self.batch_size // self.devices.count) * self.devices.count
        for batch in pipeline.evaluation_batches(dataset.records, indices, size):
            squares = self.predict(variables, self.devices.shard(batch['image']))
            squares = self.devices.gather(squares)
            for index, square, valid in zip(batch['example'], squares, batch['valid'], strict=True):
                if valid:
                    yield int(index), geometry.unfit(square, dataset.records.shapes[index])


def score(predictor: Predictor, variables, label: str, dataset: Dataset) -> Scores:
    """Predicts all validation images and keeps what `Scores` holds."""
    histograms, pixels, image_probability = [], [], []
    stream = predictor(variables, dataset, dataset.validation)
    total = len(dataset.validation)
    for index, probability in tqdm(stream, f'evaluate ({label})', total, unit='image'):
        mask = rle.decode_all(dataset.examples[index].rles, probability.shape)
        histograms.append(thresholds.pixel_histogram(probability, mask))
        pixels.append(probability.size)
        image_probability.append(metrics.image_probability(probability))
    return Scores(np.stack(histograms), np.array(pixels), np.array(image_probability))


def judge(config, scores: Scores, patients: Sequence[str]) -> Judged:
    """Cross-fitted figures of one variant."""
    parts = min(PARTS, len(set(patients)))
    if parts < 2:
        raise UsageError(
            'config.data.num_folds: one held-out patient is too few to choose thresholds on some '
            'images and judge them on others; use fewer folds or more images'
        )
    fitted = thresholds.cross_fit(
        scores.histograms, scores.pixels, patients, parts=parts,
        seed=config.data.split_seed, kind=config.evaluation.rule,
    )  # fmt: skip
    summary = metrics.summarize(
        fitted.dice, scores.true_px, fitted.predicted_px, scores.probability,
        seed=config.seed, patients=patients, samples=config.evaluation.bootstrap,
    )  # fmt: skip
    return Judged(summary, fitted.dice, fitted.predicted_px, scores)


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
