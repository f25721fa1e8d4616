"""The state a run starts from. The first of these that there is:

1. its own newest checkpoint: parameters, batch statistics, optimizer state, step    (`resume`)
2. the run that `config.init_from` names: parameters and batch statistics
3. the file or run that `config.model.pretrained` names: the encoder, or a whole U-Net
4. random weights
"""

import dataclasses
import re
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.data.sampling import Plan
from pneumojax.errors import UsageError
from pneumojax.models import build, download, pretrained
from pneumojax.models.unet import CLASSIFICATION_HEAD
from pneumojax.runs.checkpoints import Damaged
from pneumojax.runs.run import Run
from pneumojax.system.progress import log
from pneumojax.training import averaging
from pneumojax.training import optimizer as optimizer_lib
from pneumojax.training.state import TrainState, create_state

ITEMS = ('params', 'batch_stats', 'opt_state')


def resume(
    run: Run, config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation
) -> TrainState | None:
    """The state of the newest intact checkpoint, as numpy arrays; None where there is none.

    Damaged ones are skipped with a warning that names them, and moved to `damaged/`: training is
    deterministic, so continuing from an older one costs nothing but time.

    Raises:
      UsageError: the checkpoints are of another network or optimizer, or all are damaged.
    """
    run.checkpoints.put_back()
    run.checkpoints.set_incomplete_aside()
    shapes = jax.eval_shape(
        lambda variables: create_state(variables, optimizer), build.variable_shapes(config)
    )
    damaged = []
    for step in reversed(run.checkpoints.steps()):
        try:
            items = run.checkpoints.load(step, {name: getattr(shapes, name) for name in ITEMS})
        except Damaged as error:
            log.warning('%s', error)
            damaged.append(step)
            continue
        for other in damaged:
            moved = run.checkpoints.set_aside(other)
            log.warning('moved to %s; continuing from step %d', moved, step)
        return TrainState(
            step=np.asarray(step, np.int32),
            seed=np.asarray(config.seed % 2**32, np.uint32),
            **items,
        )
    if damaged:
        raise UsageError(
            f'{run.path}: every checkpoint is damaged (steps {damaged}); restore one from a '
            'backup, or delete the checkpoints folder to start training again'
        )
    return None


def train_on(
    state: TrainState, config: ml_collections.ConfigDict, plan: Plan, planned: int
) -> TrainState:
    """The last state of a finished run as one to go on from, and says what that means.

    Args:
      state: after `planned` epochs, in host memory.
      config: whose `num_epochs` is higher.
      plan: of all epochs.
      planned: epochs of the finished run.
    """
    rate = optimizer_lib.learning_rate(config, plan)
    log.warning(
        'num_epochs is raised from %d to %d. The learning rate is a function of the share of the '
        'steps that are done: it goes back up, from %.3g to %.3g, and then down again. An average '
        'of the weights starts anew. The evaluation is of the network as it was: evaluate again at '
        'the end. The checkpoint of step %d is removed once there are %d newer ones '
        '(checkpoint.keep)',
        planned, config.num_epochs, config.optimizer.final_learning_rate,
        float(rate(int(state.step) // config.optimizer.accumulate)), int(state.step),
        config.checkpoint.keep,
    )  # fmt: skip
    return dataclasses.replace(state, opt_state=averaging.start_anew(state.opt_state, state.params))


def initial_variables(config: ml_collections.ConfigDict, held_out: list[str]) -> dict[str, Any]:
    """Parameters and batch statistics for step 0 (2 to 4 of the order above).

    Args:
      config: `init_from`, `init_weights`, `model` and `seed` are read.
      held_out: ImageIds of this run's validation images.

    Raises:
      UsageError: the weights cannot be read, belong to another network, or were trained on images
        that this run holds out.
    """
    if config.init_from:
        return _from_run(config, Run(config.init_from), held_out)
    random = jax.device_get(build.initial_variables(config))
    if config.model.pretrained:
        earlier = Run(config.model.pretrained)
        if (earlier / 'split.json').exists():  # a run that was trained here
            config_lib.require_segmentation(earlier.config(), earlier.path)
        require_unseen('model.pretrained', earlier, held_out)
        return pretrained.initialize(random, config.model.pretrained)
    return random


def require_start(config: ml_collections.ConfigDict) -> None:
    """UsageError where there are no images or no weights to start from; 'imagenet' is fetched."""
    if config.init_from:
        require_checkpoint(Run(config.init_from))
    dataset_lib.require_folder(config)
    if config.model.pretrained and not config.init_from:
        pretrained.load(download.resolve(config.model.pretrained, encoder=config.model.encoder))


def require_checkpoint(run: Run) -> int:
    """Newest step of an earlier run; UsageError, with the command, where it has no checkpoint."""
    step = run.checkpoints.latest_step() if run.exists else None
    if step is None:
        fold = re.fullmatch(r'fold\d+', run.path.name)
        whole = run.path.parent if fold else run.path
        raise UsageError(
            f'config.init_from: {run.path} has no checkpoint to start from; train that stage '
            f'first: python -m pneumojax.main --config=configs/{whole.name}.py'
            f'{f":{fold[0]}" if fold else ""} --workdir={whole}'
        )
    return step


def require_unseen(key: str, run: Run, held_out: list[str]) -> None:
    """UsageError where a run was trained on images held out here; other weights do not say."""
    if not (run / 'split.json').exists():
        return
    leaked = set(run.read_json('split.json')['train']) & set(held_out)
    if leaked:
        advice = (
            'train it on a folder without these'
            if run.config().loss.restoration
            else 'use the same data.fold, data.num_folds and data.split_seed in both'
        )
        raise UsageError(
            f'config.{key}: {run.path} was trained on {len(leaked)} of the images that this run '
            f'holds out ({min(leaked)}, ...); {advice}'
        )


def _from_run(config: ml_collections.ConfigDict, run: Run, held_out: list[str]) -> dict[str, Any]:
    """All variables of an earlier run; `init_weights` says whether averaged, where it has both."""
    step = require_checkpoint(run)
    require_unseen('init_from', run, held_out)
    shapes = build.variable_shapes(config)
    fresh = _fresh_heads(run, config)
    if not fresh:
        _require_same_heads(run, config.model.classification_head != 'none')
    done, planned = run.checkpoints.epochs_done(step) or (0, 0)
    if done < planned:
        log.warning('%s is not finished: it stopped after epoch %d of %d', run.path, done, planned)
    averaged = config.init_weights == 'average' and run.checkpoints.has_average(step)
    if config.init_weights == 'average' and not averaged:
        log.warning(
            '%s has no averaged weights at step %d: starting from its last ones', run.path, step
        )
    if fresh:
        shapes['params'].pop(CLASSIFICATION_HEAD, None)  # a run without labels has none
    loaded = run.checkpoints.load_variables(step, shapes, averaged=averaged)
    return loaded | {'params': loaded['params'] | fresh}


def _fresh_heads(run: Run, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Random heads where one run learns to restore images and the other to find lesions."""
    if (config.loss.restoration > 0) == (run.config().loss.restoration > 0):
        return {}
    params = jax.device_get(build.initial_variables(config))['params']
    log.info('%s learned something else: all but its heads is taken from it', run.path)
    return {name: params[name] for name in params if name not in ('encoder', 'decoder')}


def _require_same_heads(run: Run, ours: bool) -> None:
    """UsageError where only one of two networks has a classification head: none may stay random."""
    theirs = run.config().model.get('classification_head', 'none') != 'none'
    if theirs and not ours:
        raise UsageError(
            f'config.init_from: {run.path} has a classification head; give this stage the same '
            'one: --config.model.classification_head=auxiliary or gate, and '
            '--config.loss.classification'
        )
    if ours and not theirs:
        raise UsageError(
            f'config.init_from: {run.path} has no classification head, which '
            'model.classification_head asks for; train it with one too, or set '
            'model.classification_head=none; a converted network may be given as '
            'model.pretrained instead: the head then starts at random'
        )
