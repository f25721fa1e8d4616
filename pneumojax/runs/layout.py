"""What a configuration stands for: one run, or folds and stages, each in a folder of its own.

    runs/NAME/fold0/stage1, runs/NAME/fold0/stage2, runs/NAME/fold1/stage1, ...

Folds stand around stages, so fold k's second stage starts from fold k's first.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from pneumojax import config as config_lib
from pneumojax.config import ALL_FOLDS
from pneumojax.errors import UsageError
from pneumojax.runs.run import Run


def children(config, workdir: pathlib.Path) -> Iterator[tuple[Any, pathlib.Path]]:
    """The configurations one level below, with their folders; none where this is one run."""
    if config.data.fold == ALL_FOLDS:
        for fold in range(config.data.num_folds):
            yield fold_config(config, fold), workdir / f'fold{fold}'
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
        yield stage, workdir / name
        before = str(workdir / name)


def runs(config, workdir: pathlib.Path) -> Iterator[tuple[Any, Run]]:
    """The runs that a config stands for, in the order in which they are trained.

    A stage starts from the one before it, unless it names another `init_from`.
    """
    below = list(children(config, workdir))
    if not below:
        yield config, Run(workdir)
    for part, folder in below:
        yield from runs(part, folder)


def fold_config(config, fold: int):
    """One fold of a k-fold configuration; where `init_from` has folds too, its fold is taken."""
    part = config.copy_and_resolve_references()
    with part.unlocked():
        part.data.fold = fold
        if part.init_from and has_folds(pathlib.Path(part.init_from)):
            part.init_from = str(pathlib.Path(part.init_from) / f'fold{fold}')
    return part


def of_fold(config, workdir: pathlib.Path, fold: str) -> tuple[Any, pathlib.Path]:
    """What `--fold` makes of a configuration and its run directory.

    Args:
      config: of one run or of stages.
      workdir: the directory of all folds.
      fold: 'all', or the number of the only one to work on.

    Raises:
      UsageError: neither, or a fold that there is not.
    """
    if fold == 'all':
        with config.unlocked():
            config.data.fold = ALL_FOLDS
        return config, workdir
    if not fold.isdecimal() or int(fold) >= config.data.num_folds:
        raise UsageError(
            f"--fold is {fold!r}: expected 'all' or 0 to {config.data.num_folds - 1}, as "
            f'config.data.num_folds is {config.data.num_folds}'
        )
    return fold_config(config, int(fold)), workdir / f'fold{int(fold)}'


def has_folds(path: pathlib.Path) -> bool:
    """Whether a run directory is that of a k-fold training, even one that has only begun."""
    return path.is_dir() and any(re.fullmatch(r'fold\d+', p.name) for p in path.iterdir())


def last_stage(config):
    """The configuration of the last stage (of each fold), under the name of the whole."""
    if not config.stages:
        return config
    fold, alone = config.data.fold, config.copy_and_resolve_references()
    with alone.unlocked():
        alone.data.fold = 0  # stages are below folds
    *_, (stage, _) = children(alone, pathlib.Path())
    with stage.unlocked():
        stage.data.fold, stage.name = fold, config.name
    return stage


def predicting(run: Run) -> tuple[Run, list[Run]]:
    """The run whose thresholds count, and the trained runs that predict together.

    Args:
      run: one run (both are that one), a run directory with stages (its last stage), or one with
        folds (itself, and the last stage of every fold).

    Raises:
      UsageError: not a run directory.
    """
    config = run.config()
    if config.data.fold == ALL_FOLDS:
        folds = [Run(folder) for _, folder in children(config, run.path)]
        return run, [predicting(fold)[1][0] for fold in folds]
    if config.stages:
        *_, (_, folder) = children(config, run.path)
        return Run(folder), [Run(folder)]
    return run, [run]
