"""What training minimises: weighted losses of logits and masks, in float32."""

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
    return _mean(optax.sigmoid_binary_cross_entropy(logits, masks), axis_name)


def focal(logits, masks, gamma: float = 2.0, axis_name: str | None = None):
    """Cross-entropy in which pixels already right count less: mean of -(1 - q)^gamma log q.

    q is the probability given to the truth. The mean is over all pixels of the batch, as in
    sneddy's code (W), not over the positive ones as in the paper, and there is no weight per class:
    with gamma 0 this is `bce`. sneddy clips probabilities, which stops the gradient where the
    network is surest and wrong; here all is computed from logits, and nothing is clipped.

    Args:
      logits, masks, axis_name: as in `bce`.
      gamma: 0 or more.

    References:
      Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002).
    """
    return _mean(optax.losses.sigmoid_focal_loss(logits, masks, gamma=gamma), axis_name)


def soft_dice(
    logits, masks, smooth: float = 1.0, axis_name: str | None = None, *, over: str = 'batch'
):
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth).

    Over the whole batch at once, as in the authors' released code (A) and the winners' (W), a
    lesion-free image adds only its false positives, where a ratio per image jumps between 0 and 1;
    but large lesions count more than small ones. Over each image, every lesion counts the same.

    Args:
      logits, masks: as in `bce`.
      smooth: keeps batches (images) without any lesion defined.
      axis_name: sums run over all devices of this `pmap`, so that they agree with one device.
      over: 'batch' for one ratio, 'image' for the mean of one per image.
    """
    probabilities = jax.nn.sigmoid(logits)
    axes = None if over == 'batch' else (1, 2, 3)
    terms = probabilities * masks, probabilities, masks
    sums = tuple(jnp.sum(term, axis=axes) for term in terms)
    if axis_name is not None and over == 'batch':
        sums = jax.lax.psum(sums, axis_name)
    intersection, predicted, true = sums
    loss = 1.0 - (2.0 * intersection + smooth) / (predicted + true + smooth)
    return loss if over == 'batch' else _mean(loss, axis_name)


def image_bce(image_logits, masks, axis_name: str | None = None):
    """Cross-entropy of "there is a lesion in this image", mean over the images of the batch.

    What counts is the mask that the network sees: a window beside the lesion is an image without.
    (amirassov keeps the label of the whole image for its crops.)

    Args:
      image_logits: [B], float32.
      masks, axis_name: as in `bce`.
    """
    shows = jnp.max(masks, axis=(1, 2, 3))
    return _mean(optax.sigmoid_binary_cross_entropy(image_logits, shows), axis_name)


def combined(logits, masks, config, axis_name: str | None = None, image_logits=None):
    """The weighted sum that `config.loss` asks for, and its parts by name.

    Args:
      logits, masks: as in `bce`.
      config: `bce`, `dice`, `focal` and `classification` are weights; `smooth`,
        `dice_reduction` as in `soft_dice`; `focal_gamma` as in `focal`.
      axis_name: as in `bce`.
      image_logits: as in `image_bce`, where the network has an image head.

    Returns:
      (loss, {'bce': ..., 'dice_loss': ...}), float32 scalars; 'focal' and 'image' too where they
      have a weight.
    """
    parts = {
        'bce': bce(logits, masks, axis_name),
        'dice_loss': soft_dice(logits, masks, config.smooth, axis_name, over=config.dice_reduction),
    }
    loss = config.bce * parts['bce'] + config.dice * parts['dice_loss']
    if config.focal:
        parts['focal'] = focal(logits, masks, config.focal_gamma, axis_name)
        loss = loss + config.focal * parts['focal']
    if config.classification:
        parts['image'] = image_bce(image_logits, masks, axis_name)
        loss = loss + config.classification * parts['image']
    return loss, parts


def _mean(values, axis_name: str | None):
    value = jnp.mean(values)
    return value if axis_name is None else jax.lax.pmean(value, axis_name)
