"""Decodes 8-bit JPEG by libjpeg-turbo in strict mode, which reports damage.

OpenCV and Pillow use the same decoder, but silently fill in what is damaged or missing, and return
an image that looks complete.
"""

import numpy as np
import simplejpeg

from pneumojax.data.files.codestreams import StreamError

# Extra bytes after the last row are harmless, and occur in some makers' files.
_HARMLESS = 'extraneous bytes before marker 0xd9'


def decode(stream: bytes) -> np.ndarray:
    """Decodes a grey stream whose header has been checked, see `codestreams`.

    Returns:
      uint8 [H, W], with the same bits as from OpenCV and Pillow.

    Raises:
      StreamError: the data are damaged.
    """
    return _decode(stream, {})[..., 0]


def decode_rgb(stream: bytes) -> np.ndarray:
    """Decodes a colour stream like `decode`: uint8 [H, W, 3], red first."""
    return _decode(stream, {}, 'RGB')


def check(stream: bytes) -> None:
    """Raises StreamError like `decode`, for colour too, in half the time and little memory."""
    _decode(stream, {'min_height': 1, 'min_width': 1, 'min_factor': 8})


def _decode(stream: bytes, options: dict[str, int], colours: str = 'GRAY') -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(stream, colours, **options)
    except ValueError as error:
        if _HARMLESS in str(error):
            return simplejpeg.decode_jpeg(stream, colours, strict=False, **options)
        raise StreamError('the JPEG data are damaged; copy the file again') from error
