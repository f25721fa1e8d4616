"""2ST-UNet as far as it is known: stage1.py, then stage2.py, by one command.

    python -m pneumojax.main --config=configs/recipes/paper.py --config.data.root=DIR

It changes no value of the two; both say where each comes from (P, A, K or I). With `paper.py:folds`
every fold is trained so, and the figures are out of fold.

Expected: the paper reports 0.8356 on the private leaderboard (P); what this command gives on the
whole competition data has not been run. On 984 of its images at small sizes see docs/study.md.
"""

from configs import base, stage1, stage2
from pneumojax.config import flatten


def get_config():
    """Each stage: what its own file changes in the common part."""
    config = base.get_config()
    config.name = 'paper'
    config.model.pretrained = 'imagenet'  # P: where stage 1 starts
    config.evaluation.compare = True  # I: shows what SWA and flips gain
    config.stages = {'stage1': _changes(config, stage1), 'stage2': _changes(config, stage2)}
    return config


def _changes(config, stage) -> dict:
    """Nested keys and values of a stage that differ from the common part's."""
    common, changes = flatten(config), {}
    for key, value in flatten(stage.get_config()).items():
        # The stage before is found by its place, whatever the run directory is called.
        if key in ('name', 'init_from', 'model.pretrained', 'evaluation.compare'):
            continue
        if value != common[key] or key in ('num_epochs', 'averaging.start'):
            *groups, last = key.split('.')
            place = changes
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = value
    return changes
