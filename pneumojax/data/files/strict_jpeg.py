"""8-bit JPEG by libjpeg-turbo (as OpenCV and Pillow have it), but not blind to damage.

Where data are damaged or end early, those two paint over it in silence and give a picture that
looks whole. In strict mode the same decoder says so.
"""

import numpy as np
import simplejpeg

from pneumojax.data.files.codestreams import StreamError

# Bytes too many after the last row do no harm, and some makers' files have them.
_HARMLESS = 'extraneous bytes before marker 0xd9'


def decode(stream: bytes) -> np.ndarray:
    """Decodes a grey stream, whose header was checked (see `codestreams`).

    Returns:
      uint8 [H, W], bit for bit as OpenCV and Pillow decode it.

    Raises:
      StreamError: the data are damaged.
    """
    return _decode(stream, {})[..., 0]


def check(stream: bytes) -> None:
    """Raises StreamError as `decode` does, of colour too; takes half its time and little memory."""
    _decode(stream, {'min_height': 1, 'min_width': 1, 'min_factor': 8})


def _decode(stream, options):
    try:
        return simplejpeg.decode_jpeg(stream, 'GRAY', **options)
    except ValueError as error:
        if _HARMLESS in str(error):
            return simplejpeg.decode_jpeg(stream, 'GRAY', strict=False, **options)
        raise StreamError('the JPEG data are damaged; copy the file again') from error
