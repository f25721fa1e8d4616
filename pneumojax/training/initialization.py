"""The weights a run starts from, by this order:

1. its own newest checkpoint, state and all      (`resume`)
2. the earlier stage that `init_from` names      (parameters and statistics)
3. `model.pretrained`      (a ResNet34: the encoder; a whole converted U-Net: everything)
4. random weights
"""

import re
from typing import Any

import jax
import numpy as np
import optax

from pneumojax.errors import UsageError
from pneumojax.models import build, pretrained
from pneumojax.runs.checkpoints import Damaged
from pneumojax.runs.run import Run
from pneumojax.system.progress import log
from pneumojax.training import state as state_lib
from pneumojax.training.state import TrainState

ITEMS = ('params', 'batch_stats', 'opt_state')


def resume(run: Run, config, optimizer: optax.GradientTransformation) -> TrainState | None:
    """The state of the newest checkpoint that is whole, as numpy arrays; None where none is there.

    Damaged ones are passed over, with a warning that names them, and moved to `damaged/`: training
    is deterministic, so going on from an older one costs time and nothing else.

    Raises:
      UsageError: the checkpoints are of another network or optimizer, or every one is damaged.
    """
    run.checkpoints.put_back()
    run.checkpoints.set_incomplete_aside()
    shapes = jax.eval_shape(
        lambda variables: state_lib.create_state(variables, optimizer),
        build.variable_shapes(config),
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
            log.warning('moved to %s; going on from step %d', moved, step)
        return TrainState(step=np.asarray(step, np.int32), **items)
    if damaged:
        raise UsageError(
            f'{run.path}: every checkpoint is damaged (steps {damaged}); restore one from a '
            'backup, or delete the checkpoints folder to train anew'
        )
    return None


def variables(config, held_out: list[str]) -> dict[str, Any]:
    """Parameters and batch statistics for step 0 (2 to 4 of the order above).

    Args:
      config: `init_from`, `init_weights`, `model` and `seed` are read.
      held_out: ImageIds of this run's validation images.
    """
    if config.init_from:
        shapes = build.variable_shapes(config)
        return from_stage(Run(config.init_from), config.init_weights, shapes, held_out)
    fresh = jax.device_get(build.initial_variables(config))
    if config.model.pretrained:
        require_unseen('model.pretrained', Run(config.model.pretrained), held_out)
        return pretrained.initialize(fresh, config.model.pretrained)
    return fresh


def require_checkpoint(run: Run) -> int:
    """Newest step of an earlier stage; UsageError, with the command, where it has no checkpoint."""
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
    """UsageError where a run was trained on images held out here; others say nothing of theirs."""
    if not (run / 'split.json').exists():
        return
    leaked = set(run.read_json('split.json')['train']) & set(held_out)
    if leaked:
        raise UsageError(
            f'config.{key}: {run.path} was trained on {len(leaked)} of the images that this run '
            f'holds out ({min(leaked)}, ...); use the same data.fold, data.num_folds and '
            'data.split_seed in both'
        )


def check_heads(run: Run, shapes) -> None:
    """UsageError where only one of the two networks has an image head: no weight is left random."""
    theirs = run.config().model.get('classification_head', 'none') != 'none'
    if theirs and 'image_head' not in shapes['params']:
        raise UsageError(
            f'config.init_from: {run.path} has a classification head; give this stage the same '
            'one: --config.model.classification_head=auxiliary or gate, and '
            '--config.loss.classification'
        )
    if 'image_head' in shapes['params'] and not theirs:
        raise UsageError(
            f'config.init_from: {run.path} has no classification head, which '
            'model.classification_head asks for; train it with one too, or set '
            'model.classification_head=none; a converted network may be given as '
            'model.pretrained instead: the head then starts at random'
        )


def from_stage(run: Run, weights: str, shapes, held_out: list[str]) -> dict[str, Any]:
    """All parameters and statistics of an earlier stage; nothing stays random.

    Args:
      run: the earlier stage.
      weights: 'average' takes the averaged weights and their statistics where the stage has any.
      shapes: variables of this run's network, to compare with.
      held_out: ImageIds that this run validates on.

    Raises:
      UsageError: no such run, no checkpoint, another network, or a stage that was trained on
        images that this run wants to validate on.
    """
    step = require_checkpoint(run)
    require_unseen('init_from', run, held_out)
    check_heads(run, shapes)
    done, planned = run.checkpoints.epochs_done(step) or (0, 0)
    if done < planned:
        log.warning('%s is not finished: it stopped after epoch %d of %d', run.path, done, planned)
    averaged = weights == 'average' and run.checkpoints.has_average(step)
    if weights == 'average' and not averaged:
        log.warning(
            '%s has no averaged weights at step %d: its last ones are taken', run.path, step
        )
    return run.checkpoints.load_variables(step, shapes, averaged=averaged)
