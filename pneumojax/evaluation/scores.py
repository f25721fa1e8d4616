"""What evaluation keeps of each image's probabilities, in memory and in a run's scores.npz.

Rules are searched and folds are pooled from this alone: nothing is predicted twice.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.data import geometry, pipeline, rle
from pneumojax.data.dataset import Dataset
from pneumojax.errors import UsageError
from pneumojax.evaluation import counts, levels, metrics, rules
from pneumojax.models import build, tta
from pneumojax.runs.run import Run
from pneumojax.system.device_memory import InFittingBatches
from pneumojax.system.devices import Devices
from pneumojax.system.progress import bar, log

FILE = 'scores.npz'


class TrainedRun(NamedTuple):
    """A trained run, and the data that it was split over."""

    config: ml_collections.ConfigDict  # `evaluation` and `tta` may differ from what it trained with
    run: Run
    dataset: Dataset
    step: int  # of its newest checkpoint


def load_trained(config: ml_collections.ConfigDict, run: Run) -> TrainedRun:
    """Finds a run's newest checkpoint and loads its data set.

    Raises:
      UsageError: nothing is trained yet, or it was trained with another configuration, or on
        another data set, or without labels.
    """
    run.refuse_pretrained()
    run.require_config(config)
    config_lib.require_segmentation(config, run.path)
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
    return TrainedRun(config, run, dataset, step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores(counts.PixelCounts):
    """N images, in the order of `Dataset.validation`.

    Attributes:
      score: float64 [N], see `metrics.image_score`.
    """

    score: np.ndarray


def concatenate(parts: Sequence[Scores]) -> Scores:
    """The images of several runs, one run after another."""
    columns: dict[str, Any] = {}
    for name in vars(parts[0]):
        column = [getattr(part, name) for part in parts]
        columns[name] = None if column[0] is None else np.concatenate(column)
    return Scores(**columns)


class Variant(NamedTuple):
    """Which weights, and which flips."""

    label: str
    averaged: bool
    flips: tuple[str, ...]
    recalibrated: bool = True  # False: averaged weights with the last weights' batch statistics


def variants(config: ml_collections.ConfigDict, has_average: bool) -> list[Variant]:
    """What to score; the last one is the run's own, those before show what each part gained."""
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

    def __init__(self, config: ml_collections.ConfigDict, flips: Sequence[str]):
        self.devices = Devices()
        self.batch_size = self.devices.padded(config.evaluation.batch_size)
        function = tta.make_predict(config, build.make_model(config), flips)
        compiled = self.devices.compile(function, tta.describe(config, flips))
        self.predict = InFittingBatches(self.devices, compiled, self.batch_size)

    def __call__(
        self, variables: dict[str, Any], dataset: Dataset, indices: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index, probabilities float32 [H, W] at the original size) for each index."""
        variables = self.devices.replicate(variables)
        for batch in pipeline.evaluation_batches(dataset.records, indices, self.batch_size):
            squares = self.predict.start(variables, batch['image'])()
            for index, square, valid in zip(batch['example'], squares, batch['valid'], strict=True):
                if valid:
                    yield int(index), geometry.unfit(square, dataset.records.shapes[index])


def score(
    predictor: Predictor,
    variables: dict[str, Any],
    label: str,
    dataset: Dataset,
    *,
    regions: bool = False,
    writer: levels.Writer | None = None,
) -> Scores:
    """Predicts all validation images and keeps what `Scores` holds, `regions` if wanted.

    Their levels go to `writer`, if there is one.
    """
    histograms, pixels, image_scores, tables = [], [], [], []
    stream = predictor(variables, dataset, dataset.validation)
    total = len(dataset.validation)
    for index, probability in bar(stream, f'evaluate ({label})', total, unit='image'):
        mask = rle.decode_all(dataset.examples[index].rles, probability.shape)
        histograms.append(counts.pixel_histogram(probability, mask))
        pixels.append(probability.size)
        image_scores.append(metrics.image_score(probability))
        if regions:
            tables.append(counts.region_table(probability, mask))
        if writer:
            writer.add(probability)
    return Scores(
        histograms=np.stack(histograms),
        pixels=np.array(pixels),
        regions=np.stack(tables) if regions else None,
        score=np.array(image_scores),
    )


def of_run(
    trained: TrainedRun,
    *,
    keep: bool = False,
    wanted: Sequence[Variant] | None = None,
    file: str = FILE,
) -> dict[Variant, Scores]:
    """The scores of every variant of a run, which are also left in its scores.npz.

    Beside it goes levels.zip, of the last variant; see `read_levels`.

    Args:
      trained: its validation images are scored.
      keep: instead of predicting again, use scores.npz where it holds the scores of this
        checkpoint, these images and these variants.
      wanted: which variants; those of the configuration by default.
      file: instead of scores.npz.
    """
    config, run, dataset, step = trained
    if wanted is None:
        wanted = variants(config, run.checkpoints.has_average(step))
    if keep and (kept := _read(trained, wanted, file)):
        return kept
    shapes = build.variable_shapes(config)
    results, predictors = {}, {}
    with_levels = file == FILE
    for variant in wanted:
        variables = run.checkpoints.load_variables(step, shapes, averaged=variant.averaged)
        if not variant.recalibrated:
            last = run.checkpoints.load_variables(step, shapes, averaged=False)
            variables['batch_stats'] = last['batch_stats']
        if variant.flips not in predictors:
            predictors[variant.flips] = Predictor(config, variant.flips)
        with contextlib.ExitStack() as stack:
            writer = None
            if with_levels and variant == wanted[-1]:
                about = _about(trained, [variant])
                writer = stack.enter_context(levels.writing(run / levels.FILE, about))
            results[variant] = score(
                predictors[variant.flips], variables, variant.label, dataset,
                regions=config.evaluation.regions, writer=writer,
            )  # fmt: skip
    arrays = {'about': np.array(_about(trained, wanted))}
    for number, scores in enumerate(results.values()):
        columns = vars(scores).items()
        arrays |= {f'{name}_{number}': c for name, c in columns if c is not None}
    run.write_arrays(file, arrays)
    return results


def read_levels(trained: TrainedRun, variant: Variant) -> levels.Levels:
    """The levels of a run's validation images, in their order. ValueError if there are none."""
    return levels.Levels(trained.run / levels.FILE, _about(trained, [variant]))


def are_kept(trained: TrainedRun) -> bool:
    """Whether `of_run` would have nothing to predict."""
    wanted = variants(trained.config, trained.run.checkpoints.has_average(trained.step))
    return _read(trained, wanted, FILE) is not None


def _read(
    trained: TrainedRun, wanted: Sequence[Variant], file: str
) -> dict[Variant, Scores] | None:
    arrays = trained.run.read_arrays(file)
    if arrays is None or str(arrays.get('about')) != _about(trained, wanted):
        return None
    if file == FILE:
        try:
            read_levels(trained, wanted[-1])
        except ValueError:
            return None
    names = [field.name for field in dataclasses.fields(Scores)]
    kept = {}
    for number, variant in enumerate(wanted):
        columns: dict[str, Any] = {name: arrays.get(f'{name}_{number}') for name in names}
        kept[variant] = Scores(**columns)
    return kept


def _about(trained: TrainedRun, wanted: Sequence[Variant]) -> str:
    """What the scores are of, as text to compare."""
    config, run, dataset, step = trained
    about: dict[str, Any] = {
        'checkpoint': run.checkpoints.identity(step),
        'variants': wanted,
        # Its name changes with files, annotations and size; the folder it is in does not count.
        'data': dataset.records.folder.name,
        'images': [dataset.examples[i].image_id for i in dataset.validation],
        'bins': rules.BINS,
        'format': 2,
        'score_share': metrics.SCORE_SHARE,
        'regions': [counts.REGION_BOTTOMS, counts.REGIONS] * config.evaluation.regions,
    }
    return json.dumps(about)
