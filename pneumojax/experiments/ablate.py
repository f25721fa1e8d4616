"""What each part of the method is worth: two stages, averaging, recalibration, flips, area rule.

    two stages      the configuration's own stages
    single stage    the last stage alone, from the weights that the first one starts from, for as
                    many epochs as cost the same

Both are trained under several seeds on the same images and judged on the same held-out ones. The
other parts are taken away from the two-stage networks one at a time, which needs no training. Cost
is counted in training pixels (images x side x side), to which the work of a fully convolutional
network is proportional. The table also gives the seconds that were measured.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from pneumojax.data.datasets.example import Example
from pneumojax.drawing import ablation as outputs
from pneumojax.drawing import figures
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics, scores, thresholds
from pneumojax.evaluation.comparison import difference
from pneumojax.evaluation.evaluate import assign_parts
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.scores import Variant
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.training import loop

TWO, SINGLE = TRAININGS = 'two stages', 'single stage'
FILE = 'ablation.npz'
Stages = list[tuple[ml_collections.ConfigDict, Run]]  # of one training, in the order of training


class Arm(NamedTuple):
    """One row of the table: a way to train and to predict."""

    name: str
    training: str  # TWO or SINGLE
    variant: Variant
    area_rule: bool = True


def ablate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains whatever is not trained yet, and writes ablation.json, .md, .csv and .png.

    Args:
      config: two or more `stages`; `evaluation.ablation_seeds` trainings of both kinds.
      workdir: the run directory.

    Returns:
      The content of ablation.json.

    Raises:
      UsageError: the configuration has no stages to compare with, or cannot be trained.
    """
    if len(config.stages) < 2 or config.data.fold < 0:
        raise UsageError(
            '--mode=ablate compares stages on one fold: give a config with two stages and without '
            ':folds, such as configs/ablation.py'
        )
    whole = Run(workdir)
    whole.start(config)
    trainings = {
        training: [list(stages_of(config, workdir, training, seed)) for seed in seeds(config)]
        for training in TRAININGS
    }
    for one_seed in zip(*trainings.values(), strict=True):
        for stages in one_seed:
            for stage, run in stages:
                loop.train(stage, run)
    report = summarize(config, judge(config, trainings))
    report['training'] = {training: cost(repeats) for training, repeats in trainings.items()}
    curves = {
        training: [learning_curve(stages) for stages in repeats]
        for training, repeats in trainings.items()
    }
    whole.write_json('ablation.json', {**report, 'curves': curves})
    whole.write_text('ablation.md', outputs.markdown(report))
    whole.write_text('ablation.csv', outputs.table(report))
    figures.save(outputs.draw_ablation(report, curves, config.name), whole / 'ablation.png')
    print(outputs.markdown(report))
    return report


def seeds(config: ml_collections.ConfigDict) -> range:
    """Seeds of the trainings, the same for both kinds."""
    return range(config.seed, config.seed + config.evaluation.ablation_seeds)


def stages_of(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, training: str, seed: int
) -> Iterator[tuple[ml_collections.ConfigDict, Run]]:
    """Yields (configuration, run) of each stage of one training."""
    with_seed = config.copy_and_resolve_references()
    with with_seed.unlocked():
        with_seed.seed = seed
    folder = workdir / f'seed{seed}'
    if training == TWO:
        yield from layout.runs(with_seed, folder / 'two')
        return
    stages = [stage for stage, _ in layout.runs(with_seed, folder / 'two')]
    single = stages[-1].copy_and_resolve_references()
    pixels = sum(stage.num_epochs * stage.image_size**2 for stage in stages)
    with single.unlocked():
        single.name = 'single'
        averaged = single.num_epochs - single.averaging.start
        single.num_epochs = max(1, round(pixels / single.image_size**2))
        single.averaging.start = max(0, single.num_epochs - averaged)  # over as many epochs
        # It begins where the first stage begins, so it uses that stage's optimizer.
        single.init_from, single.optimizer = stages[0].init_from, stages[0].optimizer
    yield single, Run(folder / 'single')


def arms(config: ml_collections.ConfigDict) -> list[Arm]:
    """The rows of the table: the whole method, then rows that each lack one part of it."""
    flips = tuple(config.tta.flips)
    full = Variant('all', True, flips)
    found = [Arm('all parts', TWO, full), Arm('single stage, equal cost', SINGLE, full)]
    if config.averaging.kind != 'none':
        last = Variant('last', False, flips)
        stale = Variant('not recalibrated', True, flips, recalibrated=False)
        found.append(Arm('without averaging (SWA)', TWO, last))
        if config.averaging.bn_examples >= 0 and not config.model.frozen_batch_norm:
            found.append(Arm('averaged, BatchNorm not recalibrated', TWO, stale))
    else:
        found = [arm._replace(variant=full._replace(averaged=False)) for arm in found]
    if flips:
        found.append(Arm('without flips (TTA)', TWO, found[0].variant._replace(flips=())))
    found.append(found[0]._replace(name='without the area rule', area_rule=False))
    return found


def judge(
    config: ml_collections.ConfigDict, trainings: Mapping[str, Sequence[Stages]]
) -> dict[str, list[PerImage]]:
    """Judges every arm on the held-out images.

    Args:
      config: of the ablation.
      trainings: kind of training -> its trained stages under each seed.

    Returns:
      Name of the arm -> the results per image under each seed.
    """
    tables: dict[str, list[PerImage]] = {arm.name: [] for arm in arms(config)}
    for training, repeats in trainings.items():
        mine = [arm for arm in arms(config) if arm.training == training]
        wanted = list(dict.fromkeys(arm.variant for arm in mine))
        for stages in repeats:
            last = scores.load_trained(*stages[-1])
            scored = scores.of_run(last, keep=True, wanted=wanted, file=FILE)
            examples = [last.dataset.examples[i] for i in last.dataset.validation]
            for arm in mine:
                table = _cross_fit(config, scored[arm.variant], examples, arm.area_rule)
                tables[arm.name].append(table)
    return tables


def _cross_fit(
    config: ml_collections.ConfigDict,
    scored: scores.Scores,
    examples: Sequence[Example],
    area_rule: bool,
) -> PerImage:
    """Each part of the held-out patients, under the rule chosen on the other parts."""
    patients = [example.patient_id for example in examples]
    grid = thresholds.GRID
    if not area_rule:
        scored = dataclasses.replace(scored, regions=None)
        grid = dataclasses.replace(grid, areas=(0,))
    parts, settings = assign_parts(config, scored, patients), config.evaluation
    numbers = np.unique(patients, return_inverse=True)[1]
    scored = dataclasses.replace(scored, patients=numbers)
    fitted = thresholds.cross_fit(scored, parts, settings.rule, grid, miss=settings.miss)
    return PerImage(
        [example.image_id for example in examples], patients,
        fitted.dice, scored.true_px, fitted.predicted_px, scored.score,
    )  # fmt: skip


def summarize(
    config: ml_collections.ConfigDict, tables: Mapping[str, Sequence[PerImage]]
) -> dict[str, Any]:
    """The table: each arm's figures, and the first arm's minus these, with intervals."""
    whole = next(iter(tables.values()))
    rows = []
    for name, repeats in tables.items():
        found = difference(whole, repeats, seed=config.seed, samples=config.evaluation.bootstrap)
        per_seed = [metrics.compute(images)[0].tolist() for images in repeats]
        rows.append({
            'name': name,
            'figures': {figure: found[figure]['second'] for figure in metrics.METRICS},
            'lost': None if repeats is whole else {
                figure: {key: found[figure][key] for key in ('difference', 'low', 'high')}
                for figure in metrics.METRICS
            },
            'seeds': [dict(zip(metrics.METRICS, values, strict=True)) for values in per_seed],
        })  # fmt: skip
    images = whole[0]
    return {
        'rows': rows,
        'n': len(images),
        'n_positive': int(images.positive.sum()),
        'seeds': list(seeds(config)),
        'intervals': '95 %, paired bootstrap over patients and over seeds, each drawn anew',
    }


def cost(repeats: Sequence[Stages]) -> dict[str, float]:
    """Training pixels (images x side x side) and measured seconds, means over the seeds."""
    pixels, seconds = [], []
    for stages in repeats:
        pixels.append(sum(_pixels(stage, run) for stage, run in stages))
        seconds.append(
            sum(r.get('seconds', 0) for _, run in stages for r in run.metrics()
                if r['split'] == 'train')
        )  # fmt: skip
    return {'pixels': float(np.mean(pixels)), 'seconds': float(np.mean(seconds))}


def learning_curve(stages: Stages) -> list[dict[str, float]]:
    """Validation Dice against pixels trained on so far.

    As training measures it: the last weights, at the stage's own size, at threshold 0.5. A network
    whose probabilities are all low shows 0 there and may still do well under its own threshold.
    """
    points: list[dict[str, float]] = []
    before = 0
    for number, (stage, run) in enumerate(stages):
        for row in run.metrics():
            if row['split'] == 'validation':
                points.append({
                    'pixels': before + row['step'] * _step_pixels(stage),
                    'stage': number,
                    'dice': row['dice'],
                    'positive_dice': row['positive_dice'],
                })  # fmt: skip
        before += _pixels(stage, run)
    return points


def _pixels(stage: ml_collections.ConfigDict, run: Run) -> int:
    return (run.checkpoints.latest_step() or 0) * _step_pixels(stage)


def _step_pixels(stage: ml_collections.ConfigDict) -> int:
    return stage.batch_size * stage.image_size**2
