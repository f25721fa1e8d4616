"""2ST-UNet as far as it is known: stage1.py, then stage2.py, with one command.

    python -m pneumojax.main --config=configs/recipes/paper.py --config.data.root=DIR

It changes no value of these two files, which say where each value comes from. P: the paper's
abstract. I: our own choice. `paper.py:folds` trains every fold, and the scores are out of fold.

Expected: the paper reports 0.8356 on the private leaderboard (P). This command has not been run on
the whole competition data. docs/study.md has results on 984 of its images at small sizes.
"""

from types import ModuleType
from typing import Any

import ml_collections

from configs import base, stage1, stage2
from pneumojax.config import flatten


def get_config() -> ml_collections.ConfigDict:
    """The stages, each with what its own file changes."""
    config = base.get_config()
    config.name = 'paper'
    config.model.pretrained = 'imagenet'  # P: where stage 1 starts
    config.evaluation.compare = True  # I: shows what SWA and flips gain
    config.stages = {'stage1': _changes(config, stage1), 'stage2': _changes(config, stage2)}
    return config


def _changes(config: ml_collections.ConfigDict, stage: ModuleType) -> dict[str, Any]:
    """Nested keys and values of a stage's file that differ from the common part."""
    common = flatten(config)
    changes: dict[str, Any] = {}
    for key, value in flatten(stage.get_config()).items():
        # The earlier stage is found by its position, whatever the run directory is called.
        if key in ('name', 'init_from', 'model.pretrained', 'evaluation.compare'):
            continue
        if value != common[key] or key in ('num_epochs', 'averaging.start'):
            *groups, last = key.split('.')
            place = changes
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value
    return changes
