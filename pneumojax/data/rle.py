"""The SIIM-ACR competition's run-length code, exact in both directions.

A mask is read column by column. The text alternates `gap length`: `gap` background pixels since the
end of the previous run (or since pixel 0), then `length` foreground pixels. An empty mask is `-1`.
Source: the competition's data page (kaggle.com/c/siim-acr-pneumothorax-segmentation) and its
`mask_functions.py`, whose encoder loses a run that touches the last pixel. This one keeps it.
"""

from collections.abc import Iterable

import cv2
import numpy as np

EMPTY = '-1'
_MAX_DIGITS = 18  # an int64 holds any number of 18 digits


def encode(mask: np.ndarray) -> str:
    """Writes a mask as text.

    Args:
      mask: [H, W], any number or bool type; every nonzero pixel is foreground.

    Returns:
      `gap length gap length ...`, where only the first gap can be 0; '-1' if no pixel is set.

    Raises:
      ValueError: the mask is not two-dimensional.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f'a mask has two axes, height and width; this one has shape {mask.shape}')
    padded = np.zeros(mask.size + 2, bool)
    padded[1:-1].reshape(mask.shape[::-1])[...] = _transpose((mask != 0).view(np.uint8))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    if not edges.size:
        return EMPTY
    return ' '.join(map(str, np.diff(edges, prepend=0).tolist()))


def parse(text: str) -> np.ndarray:
    """Parses one text without knowing the image, a cheap check for a whole CSV.

    Args:
      text: `gap length ...` or '-1'; surrounding white space is allowed.

    Returns:
      int64 [n, 2]: gap >= 0 and length >= 1 of each run, in pixels; n = 0 for '-1'.

    Raises:
      ValueError: the text is malformed; the message says how.
    """
    if not isinstance(text, str):
        raise ValueError(f'run-length text must be a string, not {type(text).__name__}')
    tokens = text.split()
    if tokens == [EMPTY]:
        return np.zeros((0, 2), np.int64)
    if not tokens:
        raise ValueError(f"run-length text is blank; an empty mask is written '{EMPTY}'")
    digits = ''.join(tokens)
    if not (digits.isascii() and digits.isdigit()):
        bad = next(token for token in tokens if not (token.isascii() and token.isdigit()))
        raise ValueError(f'run-length text holds {_short(bad)}, not a whole number of 0 or more')
    if len(tokens) % 2:
        raise ValueError(
            f'run-length text has {len(tokens)} numbers; gaps and lengths come in pairs'
        )
    longest = max(tokens, key=len)
    if len(longest) > _MAX_DIGITS:
        raise ValueError(f'run-length text holds {_short(longest)}, larger than any image')
    runs = np.array(list(map(int, tokens)), np.int64).reshape(-1, 2)
    if not runs[:, 1].all():
        position = int(np.argmin(runs[:, 1]))
        raise ValueError(f'run {position + 1} of the run-length text has length 0')
    return runs


def decode(text: str, shape: tuple[int, int]) -> np.ndarray:
    """Draws the mask that one text describes.

    Args:
      text: `gap length ...` or '-1'. A gap of 0 (a run adjoining the previous one) is legal.
      shape: (height, width) of the image in pixels, each at least 1.

    Returns:
      uint8 [H, W], 0 or 1.

    Raises:
      ValueError: the text is malformed or a run exceeds the image; the message says how.
    """
    height, width = _checked_shape(shape)
    pixels = height * width
    try:
        runs = parse(text)
    except ValueError as error:
        raise ValueError(f'{error} (image of {height} x {width} pixels)') from None
    if not len(runs):
        return np.zeros((height, width), np.uint8)
    # The first comparison keeps the sum in the second from overflowing.
    if runs.max() > pixels or runs.sum() > pixels:
        end = sum(runs.ravel().tolist())
        raise ValueError(
            f'mask ends at pixel {end}, beyond the {pixels} pixels of an image of '
            f'{height} x {width} (height x width)'
        )
    edges = np.cumsum(runs.ravel())
    # Only the columns with runs are filled and transposed.
    first, last = int(edges[0]) // height, -(-int(edges[-1]) // height)
    columns = np.zeros((last - first, height), np.uint8)
    flat = columns.reshape(-1)
    edges -= first * height
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        flat[start:end] = 1  # for a few hundred runs, faster than np.repeat over all pixels
    mask = np.zeros((height, width), np.uint8)
    mask[:, first:last] = _transpose(columns)
    return mask


def decode_all(texts: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """Draws the union of several texts, as for an image with several rows.

    Args:
      texts: any number of texts; without any the mask is empty.
      shape: (height, width) of the image in pixels, each at least 1.

    Returns:
      uint8 [H, W], 0 or 1.

    Raises:
      ValueError: see `decode`.
    """
    texts = list(texts)
    if len(texts) == 1:
        return decode(texts[0], shape)
    mask = np.zeros(_checked_shape(shape), np.uint8)
    for text in texts:
        np.bitwise_or(mask, decode(text, shape), out=mask)
    return mask


def _transpose(image: np.ndarray) -> np.ndarray:
    # cv2 writes a contiguous transpose several times faster than numpy, but refuses empty arrays.
    return cv2.transpose(np.ascontiguousarray(image)) if image.size else image.T


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'shape must be (height, width), each at least 1, not {tuple(shape)}')
    return int(shape[0]), int(shape[1])


def _short(token: str) -> str:
    return repr(token if len(token) <= 24 else token[:24] + '…')
