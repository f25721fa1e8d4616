"""What training minimises: binary cross-entropy plus soft Dice, from logits, in float32."""

import jax
import jax.numpy as jnp
import optax


def bce(logits, masks, axis_name: str | None = None):
    """Binary cross-entropy, mean over all pixels of the batch.

    Args:
      logits: [B, H, W, 1], float32.
      masks: the same shape, 0 or 1.
      axis_name: of a `pmap` whose devices hold equal parts of the batch.
    """
    value = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, masks))
    return value if axis_name is None else jax.lax.pmean(value, axis_name)


def soft_dice(logits, masks, smooth: float = 1.0, axis_name: str | None = None):
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), over the whole batch at once.

    One ratio for the batch, as in the authors' released code (A): a lesion-free image then adds
    only its false positives, where a ratio per image would jump between 0 and 1.

    Args:
      logits, masks: as in `bce`.
      smooth: keeps batches without any lesion defined.
      axis_name: sums run over all devices of this `pmap`, so that they agree with one device.
    """
    probabilities = jax.nn.sigmoid(logits)
    sums = jnp.sum(probabilities * masks), jnp.sum(probabilities), jnp.sum(masks)
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    intersection, predicted, true = sums
    return 1.0 - (2.0 * intersection + smooth) / (predicted + true + smooth)


def combined(logits, masks, config, axis_name: str | None = None):
    """The weighted sum that `config.loss` asks for, and its parts by name.

    Args:
      logits, masks: as in `bce`.
      config: `bce` and `dice` are weights, `smooth` as in `soft_dice`.
      axis_name: as in `bce`.

    Returns:
      (loss, {'bce': ..., 'dice_loss': ...}), float32 scalars.
    """
    parts = {
        'bce': bce(logits, masks, axis_name),
        'dice_loss': soft_dice(logits, masks, config.smooth, axis_name),
    }
    return config.bce * parts['bce'] + config.dice * parts['dice_loss'], parts
