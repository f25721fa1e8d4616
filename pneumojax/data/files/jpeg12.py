"""JPEG Extended with 12 bits, which pydicom hands to none of its decoders: GDCM reads it well."""

import numpy as np

try:
    import gdcm
except ImportError:
    gdcm = None

AVAILABLE = gdcm is not None
NAME = 'gdcm, 12 bits'  # beside the names of pydicom's plugins, see `sandbox`


def decode(frame: bytes, rows: int, columns: int) -> np.ndarray:
    """Decodes a grey 12-bit JPEG stream; only where GDCM is `AVAILABLE`.

    Args:
      frame: from the start to the end marker; its own header must agree with the shape.
      rows, columns: the shape, pixels.

    Returns:
      uint16 [rows, columns], 0..4095; of signed values their 12-bit two's complement.

    Raises:
      ValueError: the stream is damaged.
    """
    assert gdcm is not None  # AVAILABLE
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    grey = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(grey)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    text = image.GetBuffer()  # bytes as text, one surrogate for each that is no UTF-8
    if text is None:
        raise ValueError('the JPEG stream is damaged')
    return np.frombuffer(text.encode('utf-8', 'surrogateescape'), '<u2').reshape(rows, columns)
