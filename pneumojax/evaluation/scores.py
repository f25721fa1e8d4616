"""What evaluation keeps of each image's probabilities, in memory and in a run's scores.npz.

Rules are searched and folds are put together from this alone: nothing is predicted twice.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pneumojax.data import geometry, pipeline, rle
from pneumojax.data.dataset import Dataset
from pneumojax.evaluation import metrics, thresholds
from pneumojax.models import build, tta
from pneumojax.runs.run import Run
from pneumojax.system.devices import Devices
from pneumojax.system.progress import log

FILE = 'scores.npz'


class Scores(NamedTuple):
    """N images, in the order of `Dataset.validation`."""

    histograms: np.ndarray  # int32 [N, 2, BINS], see thresholds.pixel_histogram
    pixels: np.ndarray  # int64 [N], height times width of the original
    probability: np.ndarray  # float64 [N], of the image, see metrics.image_probability
    regions: np.ndarray | None = None  # int32 [N, B, R, 2], see rules.region_table; if wanted

    @property
    def true_px(self) -> np.ndarray:
        """int64 [N]: pixels of the official mask."""
        return self.histograms[:, 1].sum(axis=1)

    def take(self, rows) -> 'Scores':
        """Chosen images, in the order of `rows` (indices)."""
        return Scores._make(None if column is None else column[rows] for column in self)


def concatenate(parts: Sequence[Scores]) -> Scores:
    """The images of several runs, one run after another."""
    columns = zip(*parts, strict=True)
    return Scores._make(None if c[0] is None else np.concatenate(c) for c in columns)


class Variant(NamedTuple):
    """Which weights, and which flips."""

    label: str
    averaged: bool
    flips: tuple[str, ...]
    own_statistics: bool = True  # False: averaged weights with the batch statistics of the last


def variants(config, has_average: bool) -> list[Variant]:
    """What to score; the last one is the run's own figure, those before show what it gained."""
    flips = tuple(config.tta.flips)
    averaged = config.evaluation.weights == 'average' and has_average
    if (
        config.evaluation.weights == 'average'
        and config.averaging.kind != 'none'
        and not has_average
    ):
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
        self.predict = self.devices.compile(function, tta.describe(config, flips))

    def __call__(
        self, variables, dataset: Dataset, indices: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index, probabilities float32 [H, W] at the original size) for each index."""
        variables = self.devices.replicate(variables)
        size = self.devices.padded(self.batch_size)
        for batch in pipeline.evaluation_batches(dataset.records, indices, size):
            squares = self.predict(variables, self.devices.shard(batch['image']))
            squares = self.devices.gather(squares)
            for index, square, valid in zip(batch['example'], squares, batch['valid'], strict=True):
                if valid:
                    yield int(index), geometry.unfit(square, dataset.records.shapes[index])


def score(
    predictor: Predictor, variables, label: str, dataset: Dataset, *, regions: bool = False
) -> Scores:
    """Predicts all validation images and keeps what `Scores` holds, `regions` if wanted."""
    histograms, pixels, image_probability, tables = [], [], [], []
    stream = predictor(variables, dataset, dataset.validation)
    total = len(dataset.validation)
    for index, probability in tqdm(stream, f'evaluate ({label})', total, unit='image'):
        mask = rle.decode_all(dataset.examples[index].rles, probability.shape)
        histograms.append(thresholds.pixel_histogram(probability, mask))
        pixels.append(probability.size)
        image_probability.append(metrics.image_probability(probability))
        if regions:
            tables.append(thresholds.region_table(probability, mask))
    return Scores(
        np.stack(histograms), np.array(pixels), np.array(image_probability),
        np.stack(tables) if regions else None,
    )  # fmt: skip


def of_run(
    config,
    run: Run,
    dataset: Dataset,
    step: int,
    *,
    keep: bool = False,
    wanted: Sequence[Variant] | None = None,
    file: str = FILE,
) -> dict[Variant, Scores]:
    """The scores of every variant of a run, which are also left in its scores.npz.

    Args:
      config: the run's configuration; `evaluation` and `tta` may differ from what it trained with.
      run: a trained run.
      dataset: its validation images are scored.
      step: of the checkpoint.
      keep: take what scores.npz holds where it is of this checkpoint, these images and variants,
        instead of predicting again.
      wanted: which variants; those of the configuration by default.
      file: instead of scores.npz.
    """
    if wanted is None:
        wanted = variants(config, run.checkpoints.has_average(step))
    about = _about(config, run, dataset, step, wanted)
    if keep and (kept := _read(run, file, about, wanted)):
        return kept
    shapes = build.variable_shapes(config)
    results, predictors = {}, {}
    for variant in wanted:
        variables = run.checkpoints.load_variables(step, shapes, averaged=variant.averaged)
        if not variant.own_statistics:
            last = run.checkpoints.load_variables(step, shapes, averaged=False)
            variables['batch_stats'] = last['batch_stats']
        if variant.flips not in predictors:
            predictors[variant.flips] = Predictor(config, variant.flips)
        results[variant] = score(
            predictors[variant.flips], variables, variant.label, dataset,
            regions=config.evaluation.regions,
        )  # fmt: skip
    arrays = {'about': np.array(about)}
    for number, scores in enumerate(results.values()):
        columns = scores._asdict().items()
        arrays |= {f'{name}_{number}': c for name, c in columns if c is not None}
    run.write_arrays(file, arrays)
    return results


def are_kept(config, run: Run, dataset: Dataset, step: int) -> bool:
    """Whether `of_run` would have nothing to predict."""
    wanted = variants(config, run.checkpoints.has_average(step))
    return _read(run, FILE, _about(config, run, dataset, step, wanted), wanted) is not None


def _read(run, file, about, wanted) -> dict[Variant, Scores] | None:
    arrays = run.read_arrays(file)
    if arrays is None or str(arrays.get('about')) != about:
        return None
    return {
        variant: Scores(*(arrays.get(f'{name}_{number}') for name in Scores._fields))
        for number, variant in enumerate(wanted)
    }


def _about(config, run, dataset, step, wanted) -> str:
    """What scores are of, as text to compare."""
    about: dict[str, Any] = {
        'checkpoint': run.checkpoints.identity(step),
        'variants': wanted,
        # Its name changes with files, annotations and size; the folder it lies in does not count.
        'data': dataset.records.folder.name,
        'images': [dataset.examples[i].image_id for i in dataset.validation],
        'bins': thresholds.BINS,
        'score_share': metrics.SCORE_SHARE,
        'regions': [thresholds.REGION_BOTTOMS, thresholds.REGIONS] * config.evaluation.regions,
    }
    return json.dumps(about)
