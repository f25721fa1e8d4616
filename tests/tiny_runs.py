"""Run directories with random weights: what prediction needs of a trained run, in a second."""

import jax
import numpy as np

from configs import base
from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.evaluation import evaluate
from pneumojax.models import build
from pneumojax.runs.run import Run


def tiny_config(size=32, seed=0, encoder='resnet34'):
    """A network that is as small as the code allows."""
    config = base.get_config()
    config.name = f'tiny{seed}'
    config.seed = seed
    config.image_size = size
    config.model.width, config.model.encoder, config.model.channels = 4, encoder, 1
    if encoder == 'resnet34':
        config.model.stage_sizes = (1, 1, 1, 1)
    config.evaluation.batch_size = 4
    return config


CALIBRATION = {'slope': 0.5, 'intercept': -1.0, 'images': 100, 'positives': 22}


def write_run(
    path, *, size=32, seed=0, flips=('horizontal',), rule=(0.5, 0, 0.5), step=7, encoder='resnet34'
):
    """A run directory as `evaluate` leaves it; its probabilities lie on both sides of a half."""
    config, run = tiny_config(size, seed, encoder), Run(path)
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
        'probability': CALIBRATION,
    })  # fmt: skip
    return run


def write_evaluated_run(path, root, cache, *, encoder='resnet34', **changes):
    """A run of random weights, evaluated on held-out images of a data set.

    Args:
      path: of the run directory.
      root, cache: of the data set.
      encoder: of the network.
      changes: dotted keys of its config, with '__' for dots.
    """
    run = write_run(path, encoder=encoder)
    config = run.config()
    config.data.root, config.data.cache, config.data.num_folds = str(root), str(cache), 4
    config.evaluation.bootstrap = 100
    for key, value in changes.items():
        *groups, last = key.split('__')
        config_lib.get(config, '.'.join(groups))[last] = value
    run.write_text('config.json', config_lib.to_json(config))
    run.write_json('split.json', dataset_lib.load(config).split_ids())
    evaluate.evaluate(config, run)
    return run
