"""Converts the stored values of a DICOM file to display values.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): decode, modality LUT or rescale, VOI LUT or
window, and only then the inversion of MONOCHROME1, which pydicom leaves to its caller. All steps
after decoding act on single values, so they are computed once per value and looked up per pixel.

The input range that becomes 0..65535 is
- with a window or VOI LUT, its output range, as the maker of the image intended;
- otherwise, for up to 8 stored bits, the range of those bits, so 8-bit radiographs are unchanged;
- otherwise the smallest to the largest pixel, as detectors use an unknown part of their range.
Pixels with the file's padding value are ignored for this and become black.
"""

import math

import cv2
import numpy as np
import pydicom

_TABLE_SPAN = 1 << 17  # with more distinct values, compute per pixel instead


class DisplayError(ValueError):
    """The tags do not yield display values; the message says why and what to do."""


def grey(pixels: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Converts stored values to display values in the sense of MONOCHROME2 (larger is brighter).

    Args:
      pixels: integers [H, W] as decoded.
      dataset: the tags that describe them.

    Returns:
      uint8 [H, W] for up to 8 stored bits wherever that loses nothing, else uint16 [H, W].

    Raises:
      DisplayError: a tag or table makes no sense.
      Exception: of any other type, with the same meaning.
    """
    bits = dataset.BitsStored
    lowest = -(1 << bits - 1) if dataset.PixelRepresentation else 0
    highest = lowest + (1 << bits) - 1
    padding = _padding(pixels, dataset)
    used = pixels if padding is None else pixels[~padding]
    if not used.size:
        return np.zeros(pixels.shape, np.uint8 if bits <= 8 else np.uint16)
    possible = np.iinfo(pixels.dtype)
    if bits <= 8 and lowest <= possible.min and possible.max <= highest:
        low, high = lowest, highest  # 8 of 8 bits: no pixel can lie outside
    else:
        low, high = int(used.min()), int(used.max())
    if low < lowest or high > highest:
        # Bits above the stored ones are not part of the pixel (PS3.5 8.1.1), often old overlays.
        pixels = (pixels.astype(np.int64) - lowest & (1 << bits) - 1) + lowest
        used = pixels if padding is None else pixels[~padding]
        low, high = int(used.min()), int(used.max())
    if bits <= 8:
        low, high = lowest, highest
    if high - low >= _TABLE_SPAN:
        image = _transform(np.clip(pixels, low, high).astype(np.int64), dataset)
    else:
        values = np.arange(low, high + 1)
        table = _transform(values, dataset)
        if bits <= 8 and not (table % 257).any():
            table = (table // 257).astype(np.uint8)
        if padding is None and np.array_equal(table, values):
            return pixels.astype(table.dtype, copy=not pixels.flags.writeable)
        if pixels.dtype == np.uint8 and len(values) == 256:
            image = cv2.LUT(pixels, table)
        else:
            image = np.take(table, _offsets(pixels, low), mode='clip')
    if padding is not None:
        image[padding] = 0
    return image


def _offsets(pixels: np.ndarray, low: int) -> np.ndarray:
    """pixels - low as indices. Pixels below `low`, which are padding, wrap around: clip them."""
    unsigned = np.dtype(pixels.dtype.str.replace('i', 'u'))  # no difference overflows in it
    first = np.array(low % (1 << 8 * unsigned.itemsize), unsigned)
    return (pixels.view(unsigned) - first).astype(np.intp)


def _padding(pixels: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Which pixels are padding (PS3.3 C.7.5.1.1.2), or None if none are."""
    first = dataset.get('PixelPaddingValue')
    if first is None:
        return None
    last = dataset.get('PixelPaddingRangeLimit')
    low, high = sorted((int(first), int(first if last is None else last)))
    padding = (pixels >= low) & (pixels <= high)
    return padding if padding.any() else None


def _transform(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Applies modality, VOI and inversion: int64 of any shape to uint16, 0..65535."""
    values = _modality(stored, dataset).astype(np.float64)
    if not np.isfinite(values).all():
        raise DisplayError('its rescale slope or intercept is absurd; export the image again')
    center, width = _first(dataset, 'WindowCenter'), _first(dataset, 'WindowWidth')
    function = str(dataset.get('VOILUTFunction') or 'LINEAR').upper()
    if dataset.get('VOILUTSequence'):
        shown, bits = _look_up(values, dataset.VOILUTSequence[0], dataset)
        unit = shown / ((1 << bits) - 1)
    # Files with widths that the standard forbids exist; such a window is ignored.
    elif center is not None and width is not None and width >= (function == 'LINEAR') and width > 0:
        unit = _window(values, center, width, function)
    else:
        span = float(values.max()) - float(values.min())
        unit = (values - values.min()) / span if span else np.zeros(values.shape)
    shown = np.rint(np.clip(unit, 0, 1) * 65535).astype(np.uint16)
    return 65535 - shown if dataset.PhotometricInterpretation == 'MONOCHROME1' else shown


def _modality(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    if dataset.get('ModalityLUTSequence'):
        return _look_up(stored, dataset.ModalityLUTSequence[0], dataset)[0]
    slope, intercept = _first(dataset, 'RescaleSlope'), _first(dataset, 'RescaleIntercept')
    with np.errstate(over='ignore'):  # the caller checks for infinity
        return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _look_up(
    values: np.ndarray, item: pydicom.Dataset, dataset: pydicom.Dataset
) -> tuple[np.ndarray, int]:
    """Applies one item of a LUT sequence (PS3.3 C.11.1.1.1); returns its output and bit depth.

    pydicom's functions wrap around in 8-bit tables of more than 256 entries.
    """
    entries, first, bits = map(int, item.LUTDescriptor)
    entries = entries or 1 << 16  # 65,536 does not fit the tag
    data = item.LUTData
    if isinstance(data, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        packed = len(data) < 2 * entries  # 8-bit entries may be stored two per word
        data = np.frombuffer(data, 'u1' if packed else '<u2' if little else '>u2')
    data = np.atleast_1d(data)[:entries]
    if len(data) < entries or not 1 <= bits <= 16:
        raise DisplayError(
            f'its lookup table has {len(data)} of {entries} entries and {bits} bits; '
            'export the image again'
        )
    return data[np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)], bits


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """The output of a window as a fraction of its range; source: PS3.3 C.11.2.1.2, C.11.2.1.3."""
    if function == 'SIGMOID':
        # The same curve as 1 / (1 + exp(-4 (x - c) / w)), without its overflow.
        return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)
    if function == 'LINEAR':
        center, width = center - 0.5, width - 1
    elif function != 'LINEAR_EXACT':
        raise DisplayError(
            'its VOI LUT function is none of LINEAR, LINEAR_EXACT and SIGMOID; export the image '
            'again'
        )
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first of a tag's numbers (a file may offer several windows); None without any."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    if value is None or value == '':
        return None
    if not math.isfinite(value):
        raise DisplayError(f'its {keyword} is not a finite number; export the image again')
    return float(value)
