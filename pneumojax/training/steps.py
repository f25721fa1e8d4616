"""The pure functions of training: they read nothing but their arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jaxtyping import Array, Bool, Float, Float32, UInt8

from pneumojax.augment import augment, hide
from pneumojax.models.batch_norm import MOMENTUM
from pneumojax.models.build import make_model
from pneumojax.models.normalize import normalize
from pneumojax.models.unet import ENCODER, frozen_layers, gate
from pneumojax.system.memoize import memoize
from pneumojax.training import losses
from pneumojax.training.state import TrainState

Batch = dict[str, Any]  # arrays that share their first axis
Sums = dict[str, Float32[Array, '']]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
EvalStep = Callable[[Any, Batch], Sums]
BatchStatsStep = Callable[[Any, Any, Batch], Any]


def to_float(
    image: UInt8[Array, 'B S S'], mask: UInt8[Array, 'B S S']
) -> tuple[Float32[Array, 'B S S 1'], Float32[Array, 'B S S 1']]:
    """Images from 0..255 to [0, 1], and masks of 0 and 1, both with a channel axis."""
    images = image[..., None].astype(jnp.float32) / 255.0
    return images, mask[..., None].astype(jnp.float32)


@memoize('model', 'augment', 'loss')
def make_train_step(
    config: ml_collections.ConfigDict,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> TrainStep:
    """Builds `train_step(state, batch) -> (state, metrics)`.

    Args:
      config: the whole configuration; model, augment and loss are read.
      optimizer: as `make_optimizer` gives it.
      axis_name: of the `pmap` that the step will run in; None for one device.

    Returns:
      A pure function. batch: image uint8 [B, S, S], mask uint8 [B, S, S] of 0 and 1, example
      int32 [B]. Metrics are float32 scalars, the same on every device: the loss and its parts, and
      the L2 norms of the gradient (before clipping), of what was added to the weights (0 between
      two updates where gradients are accumulated) and of the weights after it.
    """
    model, model_config = make_model(config, axis_name), config.model
    augment_config, loss_config = config.augment, config.loss
    normalization, channels = model_config.normalization, model_config.channels
    frozen, restores = model_config.frozen_batch_norm, loss_config.restoration > 0

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        images, masks = to_float(batch['image'], batch['mask'])
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        with jax.named_scope('augment'):
            images, masks = augment.augment_batch(
                key, batch['example'], images, masks, augment_config
            )
        shown: Array = images
        hidden: Any = None
        if restores:
            shown, hidden = hide.hide_batch(key, batch['example'], images, augment_config)
        inputs = normalize(shown, normalization, channels)

        def loss_function(params: Any) -> tuple[Float[Array, ''], Any]:
            (logits, image_logits), updated = model.apply(
                {'params': params, 'batch_stats': state.batch_stats},
                inputs, train=not frozen, parts=True, mutable=['batch_stats'],
            )  # fmt: skip
            if restores:
                value = losses.restoration(logits, images, hidden, axis_name)
                loss, parts = loss_config.restoration * value, {'restoration': value}
            else:
                loss, parts = losses.combined(logits, masks, loss_config, axis_name, image_logits)
            return loss, (parts, updated['batch_stats'])

        grad = jax.value_and_grad(loss_function, has_aux=True)
        (loss, (parts, batch_stats)), gradients = grad(state.params)
        if axis_name is not None:
            gradients = jax.lax.pmean(gradients, axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = TrainState(
            step=state.step + 1,
            seed=state.seed,
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


def make_eval_step(config: ml_collections.ConfigDict, axis_name: str | None = None) -> EvalStep:
    """Builds `eval_step(variables, batch) -> sums`, for validation while training.

    Args:
      config: the whole configuration; model and loss are read, and augment for what is hidden.
      axis_name: as in `make_train_step`.

    Returns:
      A pure function. batch: as in training, and valid bool [B]: rows that are False are padding
      and count nowhere. Sums over the valid images, float32 scalars: images, loss (of each image
      alone, with its own soft Dice), dice (hard, at 0.5, at `image_size`), positives, and
      positive_dice.
    """
    make = _make_restoration_eval_step if config.loss.restoration else _make_segmentation_eval_step
    return make(config, axis_name)


@memoize('model', 'loss')
def _make_segmentation_eval_step(
    config: ml_collections.ConfigDict, axis_name: str | None
) -> EvalStep:
    """`make_eval_step` where masks are learned."""
    model = make_model(config)
    loss_config, channels = config.loss, config.model.channels
    normalization = config.model.normalization

    def eval_step(variables: Any, batch: Batch) -> Sums:
        images, masks = to_float(batch['image'], batch['mask'])
        inputs = normalize(images, normalization, channels)
        outputs: Any = model.apply(variables, inputs, train=False, parts=True)
        logits, image_logits = outputs

        def loss_of_one(*outputs_and_mask: Any) -> Float[Array, '']:
            logits, image_logits, mask = jax.tree.map(lambda x: x[None], outputs_and_mask)
            return losses.combined(logits, mask, loss_config, image_logits=image_logits)[0]

        loss = jax.vmap(loss_of_one)(logits, image_logits, masks)
        if model.gated:
            logits = gate(logits, image_logits)
        dice, positive = hard_dice(logits > 0, masks > 0.5)
        valid = batch['valid']
        values = {
            'images': valid,
            'loss': jnp.where(valid, loss, 0.0),
            'dice': jnp.where(valid, dice, 0.0),
            'positives': valid & positive,
            'positive_dice': jnp.where(valid & positive, dice, 0.0),
        }
        sums = jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32)), values)
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    return eval_step


@memoize('model', 'augment', 'loss')
def _make_restoration_eval_step(
    config: ml_collections.ConfigDict, axis_name: str | None
) -> EvalStep:
    """`make_eval_step` for learning without labels. Sums: images and loss, and no Dice.

    Of each image the same blocks are hidden whenever it is validated, whatever the run's seed.
    """
    model, hide_config, weight = make_model(config), config.augment, config.loss.restoration
    normalization, channels = config.model.normalization, config.model.channels

    def eval_step(variables: Any, batch: Batch) -> Sums:
        images, _ = to_float(batch['image'], batch['mask'])
        shown, hidden = hide.hide_batch(jax.random.key(0), batch['example'], images, hide_config)
        predicted: Any = model.apply(
            variables, normalize(shown, normalization, channels), train=False
        )

        def loss_of_one(*rows: Any) -> Float[Array, '']:
            return weight * losses.restoration(*(row[None] for row in rows))

        loss = jax.vmap(loss_of_one)(predicted, images, hidden)
        values = {'images': batch['valid'], 'loss': jnp.where(batch['valid'], loss, 0.0)}
        sums = jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32)), values)
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    return eval_step


def hard_dice(
    predicted: Bool[Array, 'B H W 1'], true: Bool[Array, 'B H W 1']
) -> tuple[Float32[Array, ' B'], Bool[Array, ' B']]:
    """Dice of each pair of masks, 1 where both are empty; and whether the true one is not empty."""
    axes = (1, 2, 3)
    both = jnp.sum(predicted & true, axis=axes)
    total = jnp.sum(predicted, axis=axes) + jnp.sum(true, axis=axes)
    dice = jnp.where(total > 0, 2.0 * both / jnp.maximum(total, 1), 1.0)
    return dice, jnp.any(true, axis=axes)


@memoize('model')
def make_batch_stats_step(
    config: ml_collections.ConfigDict, axis_name: str | None = None
) -> BatchStatsStep:
    """Builds `batch_stats_step(params, batch_stats, batch) -> batch_stats` of exactly this batch.

    The mean of its results over training batches recalibrates BatchNorm for averaged weights: the
    statistics that came along with the last weights belong to another network. Images are whole
    and not augmented, as in prediction, even where training cuts windows from them. Only the shapes
    of the given `batch_stats` matter, but frozen stages keep theirs.

    Flax mixes new = 0.9 old + 0.1 batch; starting from zero the batch's own is new / 0.1.
    """
    model, encoder = make_model(config, axis_name), config.model.encoder
    channels, normalization = config.model.channels, config.model.normalization

    def batch_stats_step(params: Any, batch_stats: Any, batch: Batch) -> Any:
        images, _ = to_float(batch['image'], batch['mask'])
        of_encoder = batch_stats[ENCODER]
        kept = {k: of_encoder[k] for k in frozen_layers(of_encoder, encoder, model.frozen_stages)}
        zeros = jax.tree.map(jnp.zeros_like, batch_stats)
        zeros[ENCODER] |= kept
        _, updated = model.apply(
            {'params': params, 'batch_stats': zeros},
            normalize(images, normalization, channels), train=True, mutable=['batch_stats'],
        )  # fmt: skip
        new = jax.tree.map(lambda s: s / (1.0 - MOMENTUM), updated['batch_stats'])
        return {**new, ENCODER: new[ENCODER] | kept}

    return batch_stats_step
