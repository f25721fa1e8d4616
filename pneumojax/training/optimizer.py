"""The optimizer as one optax transformation, from the configuration and the plan of the run."""

from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from pneumojax.data.sampling import Plan
from pneumojax.models.unet import ENCODER, frozen_layers
from pneumojax.system.memoize import memoize
from pneumojax.training import averaging

EpochEnds = tuple[int, ...]  # batches done when each epoch ends


def make_optimizer(config: ml_collections.ConfigDict, plan: Plan) -> optax.GradientTransformation:
    """Clipping, weight decay, the method, freezing, averaging; over accumulated gradients.

    Weight decay is added to the gradient for sgd and adam, as PyTorch does, and decoupled for
    adamw. The average comes last, where the updates are exactly what is added to the weights.

    Args:
      config: the whole configuration; optimizer, averaging and model.frozen_stages are read.
      plan: schedules follow the ends of its epochs. For equal ends the same object is returned, and
        with it `make_train_step` returns the same, compiled step.
    """
    return _make_optimizer(config, tuple(plan.epoch_ends.tolist()))


@memoize('optimizer', 'averaging', 'num_epochs', 'model')
def _make_optimizer(
    config: ml_collections.ConfigDict, epoch_ends: EpochEnds
) -> optax.GradientTransformation:
    optimizer = config.optimizer
    rate = _schedule(config, epoch_ends)
    transforms = [optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []
    if optimizer.weight_decay and optimizer.name != 'adamw':
        transforms.append(optax.add_decayed_weights(optimizer.weight_decay))
    if optimizer.name == 'sgd':
        transforms.append(optax.sgd(rate, momentum=optimizer.momentum))
    elif optimizer.name == 'adam':
        transforms.append(optax.adam(rate))
    else:
        transforms.append(optax.adamw(rate, weight_decay=optimizer.weight_decay))
    frozen = updates_done(epoch_ends, optimizer.accumulate, optimizer.freeze_encoder_epochs)
    if frozen:
        transforms.append(freeze_encoder(frozen))
    if config.model.frozen_stages:  # weight decay would change them, even without a gradient
        transforms.append(freeze_stages(config.model.encoder, config.model.frozen_stages))
    transforms.append(_averaging(config, epoch_ends))
    chain = optax.chain(*transforms)
    if optimizer.accumulate > 1:
        return optax.MultiSteps(chain, optimizer.accumulate).gradient_transformation()
    return chain


def learning_rate(config: ml_collections.ConfigDict, plan: Plan) -> optax.Schedule:
    """The learning rate over updates: a linear warm-up, then half a cosine (A)."""
    return _schedule(config, tuple(plan.epoch_ends.tolist()))


def _schedule(config: ml_collections.ConfigDict, epoch_ends: EpochEnds) -> optax.Schedule:
    optimizer = config.optimizer
    updates = updates_done(epoch_ends, optimizer.accumulate, config.num_epochs)
    warmup = updates_done(epoch_ends, optimizer.accumulate, optimizer.warmup_epochs)
    final = optimizer.final_learning_rate
    # Over the share of the updates that is done: optax.warmup_cosine_decay_schedule agrees to
    # 2.3e-7 of the peak, but runs begun before would not continue with the same bits.
    cosine = optax.cosine_decay_schedule(optimizer.learning_rate - final, decay_steps=1)

    def schedule(count: Any) -> Any:
        share = jnp.clip((count - warmup) / max(1, updates - warmup), 0.0, 1.0)
        warm_up = jnp.minimum(1.0, (count + 1) / (warmup + 1))  # the first update is not lost
        return (final + cosine(share)) * warm_up

    return schedule


def updates_done(epoch_ends: EpochEnds, accumulate: int, epochs: float) -> int:
    """Updates after so many epochs (at most all): batches done, by those that make one update."""
    epochs = min(epochs, len(epoch_ends))
    ends = [0, *epoch_ends]
    whole = int(epochs)
    batches = ends[whole]
    if epochs > whole:
        batches += round((epochs - whole) * (ends[whole + 1] - ends[whole]))
    return batches // accumulate


def freeze_encoder(until: int) -> optax.GradientTransformation:
    """Zeroes the encoder's updates for the first `until` updates.

    `optax.transforms.freeze` never ends, and `optax.masked` or `optax.conditionally_mask` would
    nest the state deeper than the checkpoints of runs that were trained before have it.
    """
    scale = optax.scale_by_schedule(lambda count: jnp.where(count < until, 0.0, 1.0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        encoder, state = scale.update(updates['encoder'], state, params)
        return {**updates, 'encoder': encoder}, state

    return optax.GradientTransformation(scale.init, update)


def freeze_stages(encoder: str, stages: int) -> optax.GradientTransformation:
    """Zeroes the updates of the first stages of an encoder, see `config.model.frozen_stages`."""

    def update(updates: Any, params: Any) -> Any:
        del params
        of_encoder = updates[ENCODER]
        frozen = {layer: of_encoder[layer] for layer in frozen_layers(of_encoder, encoder, stages)}
        return {**updates, ENCODER: of_encoder | optax.tree.zeros_like(frozen)}

    return optax.stateless(update)


def _averaging(
    config: ml_collections.ConfigDict, epoch_ends: EpochEnds
) -> optax.GradientTransformation:
    settings, accumulate = config.averaging, config.optimizer.accumulate
    start = updates_done(epoch_ends, accumulate, max(0, settings.start))
    if settings.kind == 'none':
        return optax.identity()
    if settings.kind == 'ema':
        return averaging.exponential_moving_average(settings.decay, start)
    if settings.every_steps:
        return averaging.stochastic_weight_average(
            lambda count: (count > start) & ((count - start) % settings.every_steps == 0)
        )
    members = np.asarray(epoch_ends) // accumulate
    members = jnp.asarray(members[members > start])
    return averaging.stochastic_weight_average(lambda count: jnp.any(members == count))
