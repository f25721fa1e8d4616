"""What a configuration means on disk: one run, or folds and stages, each in a folder of its own.

    runs/NAME/fold0/stage1, runs/NAME/fold0/stage2, runs/NAME/fold1/stage1, ...

Folds are outside and stages inside, so fold k's second stage starts from fold k's first.
"""

import pathlib
import re
from collections.abc import Iterator

from ml_collections import ConfigDict

from pneumojax import config as config_lib
from pneumojax.config import ALL_FOLDS
from pneumojax.errors import UsageError
from pneumojax.runs.run import Run


def children(
    config: ConfigDict, workdir: pathlib.Path
) -> Iterator[tuple[ConfigDict, pathlib.Path]]:
    """The configurations one level below, with their folders; none if this is a single run."""
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
        if stage.loss.restoration:
            raise UsageError(
                f'config.stages.{name}: learning without labels (loss.restoration) is a run of its '
                'own; train it first, then these stages with --config.init_from'
            )
        yield stage, workdir / name
        before = str(workdir / name)


def runs(config: ConfigDict, workdir: pathlib.Path) -> Iterator[tuple[ConfigDict, Run]]:
    """The single runs that a configuration consists of, in the order in which they are trained.

    A stage starts from the one before it, unless it names another `init_from`.
    """
    below = list(children(config, workdir))
    if not below:
        yield config, Run(workdir)
    for part, folder in below:
        yield from runs(part, folder)


def fold_config(config: ConfigDict, fold: int) -> ConfigDict:
    """One fold of a k-fold configuration. If `init_from` has folds too, the same fold is used."""
    part = config.copy_and_resolve_references()
    with part.unlocked():
        part.data.fold = fold
        if part.init_from and has_folds(pathlib.Path(part.init_from)):
            part.init_from = str(pathlib.Path(part.init_from) / f'fold{fold}')
    return part


def select_fold(
    config: ConfigDict, workdir: pathlib.Path, fold: str
) -> tuple[ConfigDict, pathlib.Path]:
    """The configuration and the run directory that `--fold` selects.

    Args:
      config: of one run or of stages.
      workdir: the directory of all folds.
      fold: 'all', or the number of the only one to work on.

    Raises:
      UsageError: neither, or there is no such fold.
    """
    if fold == 'all':
        with config.unlocked():
            config.data.fold = ALL_FOLDS
        return config, workdir
    if not fold.isdecimal() or len(fold) > 9 or int(fold) >= config.data.num_folds:
        raise UsageError(
            f"--fold is {fold!r}: expected 'all' or 0 to {config.data.num_folds - 1}, as "
            f'config.data.num_folds is {config.data.num_folds}'
        )
    return fold_config(config, int(fold)), workdir / f'fold{int(fold)}'


def has_folds(path: pathlib.Path) -> bool:
    """Whether a run directory belongs to a k-fold training, even one that has only begun."""
    return path.is_dir() and any(re.fullmatch(r'fold\d+', p.name) for p in path.iterdir())


def last_stage(config: ConfigDict) -> ConfigDict:
    """The configuration of the last stage (of each fold), under the name of the whole."""
    if not config.stages:
        return config
    one_fold = config.copy_and_resolve_references()
    with one_fold.unlocked():
        one_fold.data.fold = 0  # stages are inside folds
    *_, (stage, _) = children(one_fold, pathlib.Path())
    with stage.unlocked():
        stage.data.fold, stage.name = config.data.fold, config.name
    return stage


def predicting_runs(run: Run) -> tuple[Run, list[Run]]:
    """The run whose thresholds are used, and the trained runs that predict together.

    Args:
      run: a single run (it is both), a run directory with stages (its last stage is both), or one
        with folds (itself, and the last stage of every fold).

    Raises:
      UsageError: not a run directory, or one that learned without labels.
    """
    config = run.config()
    if config.data.fold == ALL_FOLDS:
        folds = [Run(folder) for _, folder in children(config, run.path)]
        return run, [predicting_runs(fold)[1][0] for fold in folds]
    if config.stages:
        *_, (_, folder) = children(config, run.path)
        return Run(folder), [Run(folder)]
    config_lib.require_segmentation(config, run.path)
    return run, [run]
