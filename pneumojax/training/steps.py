"""The pure functions of training: they read nothing but their arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pneumojax.augment import augment
from pneumojax.models.build import make_model
from pneumojax.models.normalize import normalize
from pneumojax.models.resnet import MOMENTUM
from pneumojax.models.unet import gate
from pneumojax.system.memoize import memoize
from pneumojax.training import losses
from pneumojax.training.state import TrainState

Metrics = dict[str, Any]


def images_and_masks(batch) -> tuple[Any, Any]:
    """uint8 [B, S, S] of a batch -> float32 [B, S, S, 1]: images in [0, 1], masks 0 or 1."""
    images = batch['image'][..., None].astype(jnp.float32) / 255.0
    return images, batch['mask'][..., None].astype(jnp.float32)


def make_train_step(
    config, optimizer: optax.GradientTransformation, axis_name: str | None = None
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, batch) -> (state, metrics)`.

    Args:
      config: the whole configuration; model, augment, loss and seed are read.
      optimizer: as `make_optimizer` gives it.
      axis_name: of the `pmap` that the step will run in; None for one device.

    Returns:
      A pure function. batch: image uint8 [B, S, S], mask uint8 [B, S, S] of 0 and 1, example
      int32 [B]. Metrics are float32 scalars, the same on every device: the loss and its parts, and
      the L2 norms of the gradient (before clipping), of what was added to the weights (0 between
      two updates where gradients are accumulated) and of the weights after it.
    """
    model, model_config = make_model(config, axis_name), config.model
    aug, loss_weights, seed = config.augment, config.loss, config.seed
    normalization, channels = model_config.normalization, model_config.channels
    frozen = model_config.frozen_batch_norm

    def train_step(state: TrainState, batch):
        images, masks = images_and_masks(batch)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        images, masks = augment.augment_batch(key, batch['example'], images, masks, aug)
        inputs = normalize(images, normalization, channels)

        def loss_function(params):
            (logits, image_logits), updated = model.apply(
                {'params': params, 'batch_stats': state.batch_stats},
                inputs, train=not frozen, parts=True, mutable=['batch_stats'],
            )  # fmt: skip
            loss, parts = losses.combined(logits, masks, loss_weights, axis_name, image_logits)
            return loss, (parts, updated['batch_stats'])

        grad = jax.value_and_grad(loss_function, has_aux=True)
        (loss, (parts, batch_stats)), gradients = grad(state.params)
        if axis_name is not None:
            gradients = jax.lax.pmean(gradients, axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        norms = {
            'grad_norm': optax.tree.norm(gradients),
            'update_norm': optax.tree.norm(updates),
            'param_norm': optax.tree.norm(params),
        }
        return new_state, {'loss': loss, **parts, **norms}

    return train_step


@memoize('model', 'loss')
def make_eval_step(config, axis_name: str | None = None):
    """Builds `eval_step(variables, batch) -> sums`, for a look at the validation images.

    Padding rows (`valid` False) count nowhere. The sums are over the images, at `image_size`:
    loss (per image, with its own soft Dice), hard Dice at 0.5 on positives, and counts.
    """
    model = make_model(config)
    loss_weights, channels = config.loss, config.model.channels
    normalization = config.model.normalization

    def eval_step(variables, batch):
        images, masks = images_and_masks(batch)
        inputs = normalize(images, normalization, channels)
        outputs: Any = model.apply(variables, inputs, train=False, parts=True)
        logits, image_logits = outputs

        def loss_of_one(*outputs_and_mask):
            logits, image_logits, mask = jax.tree.map(lambda x: x[None], outputs_and_mask)
            return losses.combined(logits, mask, loss_weights, image_logits=image_logits)[0]

        loss = jax.vmap(loss_of_one)(logits, image_logits, masks)
        if model.gated:
            logits = gate(logits, image_logits)
        predicted, true = logits > 0, masks > 0.5
        both = jnp.sum(predicted & true, axis=(1, 2, 3))
        total = jnp.sum(predicted, axis=(1, 2, 3)) + jnp.sum(true, axis=(1, 2, 3))
        dice = jnp.where(total > 0, 2.0 * both / jnp.maximum(total, 1), 1.0)
        valid = batch['valid']
        positive = valid & jnp.any(true, axis=(1, 2, 3))
        sums = {
            'images': valid,
            'loss': jnp.where(valid, loss, 0.0),
            'dice': jnp.where(valid, dice, 0.0),
            'positives': positive,
            'positive_dice': jnp.where(positive, dice, 0.0),
        }
        sums = jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32)), sums)
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    return eval_step


@memoize('model')
def make_statistics_step(config, axis_name: str | None = None):
    """Builds `statistics_step(params, batch) -> batch_stats` of exactly this batch.

    Averaged over training batches they are the statistics that averaged weights need: those that
    came along with the last weights belong to another network. Images are whole and not augmented,
    as in prediction, even where training sees windows of them.

    Flax mixes new = 0.9 old + 0.1 batch; starting from zero the batch's own is new / 0.1.
    """
    model = make_model(config, axis_name)
    channels, normalization = config.model.channels, config.model.normalization

    def statistics_step(params, batch_stats, batch):
        images, _ = images_and_masks(batch)
        zero = jax.tree.map(jnp.zeros_like, batch_stats)
        _, updated = model.apply(
            {'params': params, 'batch_stats': zero},
            normalize(images, normalization, channels), train=True, mutable=['batch_stats'],
        )  # fmt: skip
        return jax.tree.map(lambda s: s / (1.0 - MOMENTUM), updated['batch_stats'])

    return statistics_step
