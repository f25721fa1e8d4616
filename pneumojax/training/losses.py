"""What training minimizes: weighted losses of logits and masks, in float32."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

Pixels = Float[Array | np.ndarray, 'B H W 1']
Images = Float[Array | np.ndarray, ' B']
Scalar = Float[Array, '']


def bce(logits: Pixels, masks: Pixels, axis_name: str | None = None) -> Scalar:
    """Binary cross-entropy, mean over all pixels of the batch.

    Args:
      logits: [B, H, W, 1], float32.
      masks: the same shape, 0 or 1.
      axis_name: of a `pmap` whose devices hold equal parts of the batch.
    """
    return _mean(optax.sigmoid_binary_cross_entropy(logits, masks), axis_name)


def focal(
    logits: Pixels, masks: Pixels, gamma: float = 2.0, axis_name: str | None = None
) -> Scalar:
    """Cross-entropy in which pixels already right count less: mean of -(1 - q)^gamma log q.

    q is the probability given to the truth. The mean is over all pixels of the batch, as in
    sneddy's code (W), not over the positive ones as in the paper, and there is no weight per class:
    with gamma 0 this is `bce`. sneddy clips probabilities, which stops the gradient where the
    network is most confident and wrong; here everything is computed from logits without clipping.

    Args:
      logits, masks, axis_name: as in `bce`.
      gamma: 0 or more.

    References:
      Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002).
    """
    return _mean(optax.losses.sigmoid_focal_loss(logits, masks, gamma=gamma), axis_name)


def soft_dice(
    logits: Pixels,
    masks: Pixels,
    smooth: float = 1.0,
    axis_name: str | None = None,
    *,
    reduction: str = 'batch',
) -> Scalar:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth).

    Over the whole batch at once, as in the authors' released code (A) and the winners' (W), a
    lesion-free image adds only its false positives, where a ratio per image jumps between 0 and 1;
    but large lesions count more than small ones. Over each image, every lesion counts the same.

    Args:
      logits, masks: as in `bce`.
      smooth: keeps batches (images) without any lesion defined.
      axis_name: sums run over all devices of this `pmap`, so that they agree with one device.
      reduction: 'batch' for one ratio, 'image' for the mean of one per image.
    """
    probabilities = jax.nn.sigmoid(logits)
    axes = None if reduction == 'batch' else (1, 2, 3)
    terms = probabilities * masks, probabilities, masks
    sums = tuple(jnp.sum(term, axis=axes) for term in terms)
    if axis_name is not None and reduction == 'batch':
        sums = jax.lax.psum(sums, axis_name)
    intersection, predicted, true = sums
    loss = 1.0 - (2.0 * intersection + smooth) / (predicted + true + smooth)
    return loss if reduction == 'batch' else _mean(loss, axis_name)


def classification_bce(image_logits: Images, masks: Pixels, axis_name: str | None = None) -> Scalar:
    """Cross-entropy of "there is a lesion in this image", mean over the images of the batch.

    What counts is the mask that the network sees: a window beside the lesion is an image without.
    (amirassov keeps the label of the whole image for its crops.)

    Args:
      image_logits: [B], float32.
      masks, axis_name: as in `bce`.
    """
    positive = jnp.max(masks, axis=(1, 2, 3))
    return _mean(optax.sigmoid_binary_cross_entropy(image_logits, positive), axis_name)


def restoration(
    predicted: Pixels,
    images: Pixels,
    hidden: Bool[Array | np.ndarray, 'B H W 1'],
    axis_name: str | None = None,
) -> Scalar:
    """Mean absolute difference at the hidden pixels of an image, mean over the images.

    What is asked for are intensities in units of the image's own standard deviation, from its own
    mean (both of the whole image), so that exposure and contrast do not count.

    Args:
      predicted: [B, H, W, 1], float32, of any value.
      images: the same shape, before anything was hidden.
      hidden: the same shape, at least one pixel of each image.
      axis_name: as in `bce`.
    """
    axes = (1, 2, 3)
    mean, std = (f(images, axis=axes, keepdims=True) for f in (jnp.mean, jnp.std))
    errors = jnp.abs(predicted - (images - mean) / (std + 1e-3))
    of_image = jnp.sum(jnp.where(hidden, errors, 0.0), axis=axes) / jnp.sum(hidden, axis=axes)
    return _mean(of_image, axis_name)


def combined(
    logits: Pixels,
    masks: Pixels,
    config: ml_collections.ConfigDict,
    axis_name: str | None = None,
    image_logits: Images | None = None,
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum that `config.loss` asks for, and its parts by name.

    Args:
      logits, masks: as in `bce`.
      config: `bce`, `dice`, `focal` and `classification` are weights; `smooth` and
        `dice_reduction` as in `soft_dice`; `focal_gamma` as in `focal`.
      axis_name: as in `bce`.
      image_logits: as in `classification_bce`, where the network has a classification head.

    Returns:
      (loss, {'bce': ..., 'dice_loss': ...}), float32 scalars; 'focal' and 'image' too where they
      have a weight.
    """
    parts = {
        'bce': bce(logits, masks, axis_name),
        'dice_loss': soft_dice(
            logits, masks, config.smooth, axis_name, reduction=config.dice_reduction
        ),
    }
    loss = config.bce * parts['bce'] + config.dice * parts['dice_loss']
    if config.focal:
        parts['focal'] = focal(logits, masks, config.focal_gamma, axis_name)
        loss = loss + config.focal * parts['focal']
    if config.classification:
        assert image_logits is not None  # the configuration's check requires the head
        parts['image'] = classification_bce(image_logits, masks, axis_name)
        loss = loss + config.classification * parts['image']
    return loss, parts


def _mean(values: Float[Array, '...'], axis_name: str | None) -> Scalar:
    value = jnp.mean(values)
    return value if axis_name is None else jax.lax.pmean(value, axis_name)
