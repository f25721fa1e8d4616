"""Run directories with random weights: what prediction needs of a trained run, in a second."""

import jax
import numpy as np

from configs import base
from pneumojax.models import build
from pneumojax.runs.run import Run


def tiny_config(size=32, seed=0):
    """A network that is as small as the code allows."""
    config = base.get_config()
    config.name = f'tiny{seed}'
    config.seed = seed
    config.image_size = size
    config.model.width, config.model.stage_sizes, config.model.channels = 4, (1, 1, 1, 1), 1
    config.evaluation.batch_size = 4
    return config


def write_run(path, *, size=32, seed=0, flips=('horizontal',), rule=(0.5, 0, 0.5), step=7):
    """A run directory as `evaluate` leaves it; its probabilities lie on both sides of a half."""
    config, run = tiny_config(size, seed), Run(path)
    run.start(config)
    variables = build.initial_variables(config)
    # Random weights hardly leave 0.5: a louder last layer gives masks of every kind.
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, x: np.asarray(x) * (40 if 'head' in jax.tree_util.keystr(path) else 1),
        variables['params'],
    )
    items = {'params': scaled, 'batch_stats': jax.tree.map(np.asarray, variables['batch_stats'])}
    with run.checkpoints.writer(1) as checkpointer:
        checkpointer.save_checkpointables(step, items)
    top, area, bottom = rule
    run.write_json('thresholds.json', {
        'top': top, 'area': area, 'bottom': bottom, 'reference_pixels': 1024 * 1024,
        'weights': 'last', 'flips': list(flips), 'step': step, 'image_size': size,
    })  # fmt: skip
    return run
