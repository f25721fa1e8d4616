"""Decodes 12-bit JPEG Extended by GDCM; pydicom gives it to none of its decoders."""

import numpy as np

try:
    import gdcm
except ImportError:
    gdcm = None

AVAILABLE = gdcm is not None
NAME = 'gdcm, 12 bits'  # used like the names of pydicom's plugins, see `sandbox`


def decode(frame: bytes, rows: int, columns: int) -> np.ndarray:
    """Decodes a grey 12-bit JPEG stream; GDCM must be `AVAILABLE`.

    Args:
      frame: from the start to the end marker; its header must agree with the shape.
      rows, columns: the shape in pixels.

    Returns:
      uint16 [rows, columns], 0..4095; signed values as 12-bit two's complement.

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
    text = image.GetBuffer()  # bytes as text, with a surrogate for each that is not UTF-8
    if text is None:
        raise ValueError('the JPEG stream is damaged')
    return np.frombuffer(text.encode('utf-8', 'surrogateescape'), '<u2').reshape(rows, columns)
