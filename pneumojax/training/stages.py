"""Stages one after another by one command, and the table that compares them."""

import pathlib
from collections.abc import Iterator
from typing import Any

from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.inference import evaluate as evaluate_lib
from pneumojax.progress import log
from pneumojax.run import Run
from pneumojax.training import loop

COLUMNS = (
    ('mean_dice', 'mean Dice'),
    ('all_empty_dice', 'all empty'),
    ('positive_dice', 'positives'),
    ('sensitivity', 'sensitivity'),
    ('specificity', 'specificity'),
    ('auc', 'AUC'),
)


def runs(config, workdir: pathlib.Path) -> Iterator[tuple[Any, Run]]:
    """The runs that a config stands for: itself, or each of its `stages` in a folder of its own.

    A stage starts from the one before it, unless it names another `init_from`.
    """
    if not config.stages:
        yield config, Run(workdir)
        return
    before = config.init_from
    for name, changes in config.stages.items():
        stage = config.copy_and_resolve_references()
        with stage.unlocked():
            stage.stages = {}
            stage.name = name
            stage.init_from = before
            stage.update_from_flattened_dict(config_lib.flatten(changes))
        config_lib.check(stage)
        yield stage, Run(workdir / name)
        before = str(workdir / name)


def prepare(config, workdir: pathlib.Path) -> None:
    """Decodes the images of every stage into the cache."""
    for stage, _ in runs(config, workdir):
        dataset_lib.load(stage)


def train(config, workdir: pathlib.Path) -> None:
    """Trains one run; or all stages, each evaluated, with a table at the end."""
    for stage, run in runs(config, workdir):
        loop.train(stage, run)
        if config.stages:
            evaluate_lib.evaluate(stage, run)
    if config.stages:
        print(table(config, workdir))
    else:
        log.info('trained; see what it is worth: --mode=evaluate --workdir=%s', workdir)


def evaluate(config, workdir: pathlib.Path) -> None:
    """Evaluates one run or all stages and prints the table."""
    for stage, run in runs(config, workdir):
        evaluate_lib.evaluate(stage, run)
    print(table(config, workdir))


def table(config, workdir: pathlib.Path) -> str:
    """The figures of every stage and variant, as text, from the evaluation.json files."""
    rows, n, n_positive = [], 0, 0
    for stage, run in runs(config, workdir):
        report = run.read_json('evaluation.json')
        n, n_positive = report['n'], report['n_positive']
        for label, figures in report['variants'].items():
            name = f'{stage.name}, {stage.image_size} px' if label in _FIRST else ''
            rows.append((f'{name or "":18} {label if label != "final" else ""}'.rstrip(), figures))
    width = max(len(label) for label, _ in rows)
    lines = [' ' * width + ''.join(f'{title:>14}' for _, title in COLUMNS)]
    for label, figures in rows:
        values = (figures[key]['value'] for key, _ in COLUMNS)
        lines.append(f'{label:{width}}' + ''.join(f'{_number(v):>14}' for v in values))
    last = rows[-1][1]
    intervals = ''.join(f'{_interval(last[key]):>14}' for key, _ in COLUMNS)
    lines.append(f'{"95 % of the last":{width}}' + intervals)
    lines.append(
        f'{n} held-out images, {n_positive} with a pneumothorax; thresholds never chosen on the '
        'images they are judged on'
    )
    return '\n'.join(lines)


_FIRST = ('final', 'last weights')


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def _interval(figure: dict[str, float | None]) -> str:
    if figure['low'] is None:
        return '-'
    return f'{figure["low"]:.3f}-{figure["high"]:.3f}'
