"""Trains and evaluates folds and stages one after another, and prints a table of them."""

import pathlib
from typing import Any

import ml_collections

from pneumojax.config import ALL_FOLDS
from pneumojax.data import dataset as dataset_lib
from pneumojax.evaluation import evaluate as evaluate_lib
from pneumojax.evaluation import folds
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system import processes
from pneumojax.system.progress import log
from pneumojax.training import initialization, loop

LAST_ROW = '95 % interval, last row'
COLUMNS = (
    ('mean_dice', 'mean Dice'),
    ('all_empty_dice', 'all empty'),
    ('positive_dice', 'positives'),
    ('sensitivity', 'sensitivity'),
    ('specificity', 'specificity'),
    ('auc', 'AUC'),
)


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Decodes every image once, into the caches of all stages' sizes."""
    # All folds read the same caches.
    stages = [stage for stage, _ in layout.runs(layout.fold_config(config, 0), workdir)]
    for stage in stages:
        same = [other.image_size for other in stages if other.data == stage.data]
        dataset_lib.load(stage, also=same)


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path, profile: int = 0) -> None:
    """Trains one run; or all folds and stages, each evaluated, with a table at the end.

    Args:
      config: of one run, or with folds or stages.
      workdir: the run directory.
      profile: steps of each run to trace.
    """
    parts = list(layout.children(config, workdir))
    if not parts:
        loop.train(config, Run(workdir), profile=profile)
        if config.loss.restoration:
            log.info('trained; to start from it: --config.init_from=%s', workdir)
        else:
            log.info('trained; to evaluate it: --mode=evaluate --workdir=%s', workdir)
        return
    if config.data.fold == ALL_FOLDS:
        folds.check(config)
    _train_parts(config, workdir, profile)

    def conclude() -> None:
        if config.data.fold == ALL_FOLDS:
            folds.evaluate(config, Run(workdir))
        print(table(config, workdir))

    processes.on_main(conclude)


def _train_parts(config: ml_collections.ConfigDict, workdir: pathlib.Path, profile: int) -> None:
    """Trains and evaluates everything below a run directory that is not finished yet."""
    parts = list(layout.children(config, workdir))
    if not parts:
        loop.train(config, Run(workdir), profile=profile)
        processes.on_main(lambda: folds.evaluate_one(config, Run(workdir)))
        return
    first, run = next(layout.runs(config, workdir))

    def claim() -> None:
        if run.checkpoints.latest_step() is None:
            initialization.require_start(first)
        Run(workdir).start(config)

    processes.on_main(claim)
    for part, folder in parts:
        _train_parts(part, folder, profile)


def evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Evaluates one run, or all folds and stages, and prints the table."""
    for stage, run in layout.runs(config, workdir):
        if config.data.fold == ALL_FOLDS:
            folds.evaluate_one(stage, run)
        else:
            evaluate_lib.evaluate(stage, run)
    if config.data.fold == ALL_FOLDS:
        folds.evaluate(config, Run(workdir))
    print(table(config, workdir))


def table(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> str:
    """The figures of every fold, stage and variant, as text, from the evaluation.json files."""
    shown = [
        (f'{stage.name}, {stage.image_size} px', run) for stage, run in layout.runs(config, workdir)
    ]
    if config.data.fold == ALL_FOLDS:
        shown = [(str(run.path.relative_to(workdir)), run) for _, run in shown]
        shown.append(('all folds', Run(workdir)))
    rows: list[tuple[str, dict[str, Any]]] = []
    for name, run in shown:
        report = run.read_json('evaluation.json')
        variants = report['variants']
        if config.data.fold == ALL_FOLDS and run.path != workdir:
            variants = {'final': report}
        for i, (label, figures) in enumerate(variants.items()):
            rows.append(
                (f'{"" if i else name:18} {label if label != "final" else ""}'.rstrip(), figures)
            )
    width = max(len(label) for label in (LAST_ROW, *(label for label, _ in rows)))
    lines = [' ' * width + ''.join(f'{title:>14}' for _, title in COLUMNS)]
    for label, figures in rows:
        values = (figures[key]['value'] for key, _ in COLUMNS)
        lines.append(f'{label:{width}}' + ''.join(f'{_number(v):>14}' for v in values))
    last = rows[-1][1]
    intervals = ''.join(f'{_interval(last[key]):>14}' for key, _ in COLUMNS)
    lines.append(f'{LAST_ROW:{width}}' + intervals)
    lines.append(
        f'{report["n"]} held-out images, {report["n_positive"]} with a pneumothorax; thresholds '
        'never chosen on the images they are judged on'
    )
    return '\n'.join(lines)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def _interval(figure: dict[str, float | None]) -> str:
    if figure['low'] is None:
        return '-'
    return f'{figure["low"]:.3f}-{figure["high"]:.3f}'
