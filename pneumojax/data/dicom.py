"""One DICOM file in, one grey image out, bright where the radiograph is meant to look bright.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): decode, modality LUT or rescale, VOI LUT or
window, and only then the inversion of MONOCHROME1, which pydicom leaves to its caller. All steps
after decoding act on single values, so they are computed once per value and looked up per pixel.

What decides the output's range:
- a window or VOI LUT: its output range becomes 0..65535, as the maker of the image meant it;
- else, up to 8 bits stored: the range the bits can hold, so 8-bit radiographs stay as they are;
- else: the smallest to the largest pixel, since detectors use an unknown part of their range.
Pixels with the file's padding value are left out of that and become black.
"""

import math
import os

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.tag import Tag

from pneumojax.data import jpeg12

MAX_PIXELS = 100_000_000
_REQUIRED = (
    'Rows', 'Columns', 'SamplesPerPixel', 'PhotometricInterpretation',
    'BitsAllocated', 'BitsStored', 'PixelRepresentation', 'PixelData',
)  # fmt: skip
_OPTIONAL = (
    'NumberOfFrames', 'PixelPaddingValue', 'PixelPaddingRangeLimit', 'ModalityLUTSequence',
    'RescaleSlope', 'RescaleIntercept', 'VOILUTSequence', 'VOILUTFunction', 'WindowCenter',
    'WindowWidth',
)  # fmt: skip
_TAGS = [Tag(keyword) for keyword in (*_REQUIRED, *_OPTIONAL)]  # looked up once, not per file
# Codecs under permissive licences first; pylibjpeg-libjpeg would do as well, but is GPLv3.
_TO_INSTALL = {
    uid.JPEG2000Lossless: 'pillow',
    uid.JPEG2000: 'pillow',
    uid.JPEGLSLossless: 'pyjpegls',
    uid.JPEGLSNearLossless: 'pyjpegls',
    uid.HTJ2KLossless: 'pylibjpeg pylibjpeg-openjpeg',
    uid.HTJ2KLosslessRPCL: 'pylibjpeg pylibjpeg-openjpeg',
    uid.HTJ2K: 'pylibjpeg pylibjpeg-openjpeg',
}
_TABLE_SPAN = 1 << 17  # beyond so many distinct values, compute per pixel instead
_EXPORT_AGAIN = 'export the image again as a single-frame grey DICOM file'


class DicomError(ValueError):
    """A file that gives no image; one line that names the file, the reason and what to do."""


def read(path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a single-frame grey DICOM file in the sense of MONOCHROME2 (larger is brighter).

    Args:
      path: a DICOM file, of any transfer syntax that an installed decoder reads. JPEG Baseline is
        always decoded by OpenCV, so that every machine gets the same bits.
      max_pixels: refuse files that claim more pixels than this, before any memory is taken.

    Returns:
      uint8 [H, W] for up to 8 bits stored wherever that loses nothing (8-bit images without a
      window are unchanged), else uint16 [H, W] over the full range 0..65535.

    Raises:
      DicomError: anything that keeps the file from being read.
    """
    try:
        dataset = _open(path, max_pixels)
        return _display(_decode(dataset), dataset)
    except DicomError as error:
        raise DicomError(f'{path}: {error}') from error.__cause__
    # The file is foreign input: whatever the parsers below raise means that it is damaged.
    # Their messages may quote the file, which names a patient, so only the type is passed on.
    except Exception as error:
        raise DicomError(
            f'{path}: damaged or unusual DICOM file ({type(error).__name__}); {_EXPORT_AGAIN}'
        ) from error


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Brings what `read` returns to 8 bits.

    Args:
      image: uint8, returned as it is, or uint16 over 0..65535; any shape.

    Returns:
      uint8 of the same shape: the nearest integer to image / 257 (there are no ties).

    Raises:
      ValueError: another type.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ValueError(f'expected uint8 or uint16 pixels, not {image.dtype}')
    # In float32, but far from any tie: the same as (image + 128) // 257, ten times faster.
    flat = image.reshape(1, -1)
    return cv2.convertScaleAbs(flat, alpha=1 / 257).reshape(image.shape) if flat.size else flat


def _open(path: str | os.PathLike, max_pixels: int) -> pydicom.Dataset:
    """Reads only the tags that make the image, none of which identifies anyone."""
    try:
        dataset = pydicom.dcmread(path, specific_tags=_TAGS)
    except FileNotFoundError as error:
        raise DicomError('no such file; check the path') from error
    except OSError as error:
        raise DicomError(f'cannot be read ({error.strerror}); expected a DICOM file') from error
    except pydicom.errors.InvalidDicomError as error:
        raise DicomError(
            'not a DICOM file (no "DICM" at byte 128); remove it, or export it as DICOM Part 10'
        ) from error
    if not dataset.get('PixelData'):
        raise DicomError(
            f'no pixel data; the file is cut short or holds no image: copy it again or '
            f'{_EXPORT_AGAIN}'
        )
    missing = [keyword for keyword in _REQUIRED if dataset.get(keyword) is None]
    if missing:
        raise DicomError(f'the tags {", ".join(missing)} are missing; {_EXPORT_AGAIN}')
    frames = int(dataset.get('NumberOfFrames') or 1)
    if frames != 1:
        raise DicomError(f'has {frames} frames, expected 1; {_EXPORT_AGAIN}')
    if dataset.SamplesPerPixel != 1 or dataset.PhotometricInterpretation not in (
        'MONOCHROME1',
        'MONOCHROME2',
    ):
        raise DicomError(
            f'is a colour image ({dataset.SamplesPerPixel} samples per pixel), expected '
            f'MONOCHROME1 or MONOCHROME2; {_EXPORT_AGAIN}'
        )
    rows, columns = dataset.Rows, dataset.Columns
    if rows < 1 or columns < 1:
        raise DicomError(f'claims {rows} x {columns} pixels; {_EXPORT_AGAIN}')
    if rows * columns > max_pixels:
        raise DicomError(
            f'claims {rows} x {columns} pixels, more than the limit of {max_pixels}; '
            'downsample the image first'
        )
    if not 1 <= dataset.BitsStored <= dataset.BitsAllocated <= 32:
        raise DicomError(
            f'stores {dataset.BitsStored} of {dataset.BitsAllocated} bits, expected 1 to 32; '
            f'{_EXPORT_AGAIN}'
        )
    return dataset


def _decode(dataset: pydicom.Dataset) -> np.ndarray:
    """Returns the stored values: an integer array [H, W]."""
    rows, columns = dataset.Rows, dataset.Columns
    syntax = dataset.file_meta.get('TransferSyntaxUID')
    if syntax is None:
        raise DicomError(f'does not say its transfer syntax; {_EXPORT_AGAIN}')
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DicomError(f'its transfer syntax cannot be decoded; {_EXPORT_AGAIN}') from None
    native = not syntax.is_encapsulated
    if native:
        expected = math.ceil(rows * columns * dataset.BitsAllocated / 8)
        if len(dataset.PixelData) < expected:
            raise DicomError(
                f'cut short: {len(dataset.PixelData)} of {expected} bytes of pixel data are '
                'there; copy the file again'
            )
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        precision = _check_jpeg(frame, rows, columns)
        if precision == 8:
            return _decode_jpeg(frame, dataset)
        if precision == 12 and jpeg12.AVAILABLE:
            return jpeg12.decode(frame, rows, columns)
    packages = _TO_INSTALL.get(syntax, 'python-gdcm')
    if not decoder.is_available:
        raise DicomError(f'no decoder for {syntax.name} is installed; run: pip install {packages}')
    try:
        pixels = dataset.pixel_array
    except Exception as error:
        other = '' if native else f', or try another decoder: pip install {packages}'
        raise DicomError(
            f'the {syntax.name} pixel data cannot be decoded ({type(error).__name__}); copy the '
            f'file again{other}'
        ) from error
    if pixels.shape != (rows, columns):
        raise DicomError(
            f'decodes to shape {pixels.shape}, its tags say {rows} x {columns}; {_EXPORT_AGAIN}'
        )
    return pixels


def _decode_jpeg(frame: bytes, dataset: pydicom.Dataset) -> np.ndarray:
    # Not IMREAD_GRAYSCALE, which would obey an EXIF rotation and hide colour.
    pixels = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (dataset.Rows, dataset.Columns):
        raise DicomError('the JPEG pixel data is damaged; copy the file again')
    return pixels.view(np.int8) if dataset.PixelRepresentation else pixels


def _check_jpeg(frame: bytes, rows: int, columns: int) -> int:
    """Holds a JPEG stream's own header against the tags before memory is taken; its precision."""
    if frame[:2] != b'\xff\xd8':
        raise DicomError('the pixel data is not JPEG as the tags say; export the image again')
    # OpenCV would fill the missing rows of a stream without its end marker in silence.
    if not frame.rstrip(b'\0\xff').endswith(b'\xff\xd9'):
        raise DicomError('cut short: the JPEG pixel data has no end; copy the file again')
    position = 2
    while position + 9 < len(frame):
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4])
        if frame[position] != 0xFF:
            break
        if marker == 0xFF:  # fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            precision, components = frame[position + 4], frame[position + 9]
            height = int.from_bytes(frame[position + 5 : position + 7])
            width = int.from_bytes(frame[position + 7 : position + 9])
            if (height, width, components) != (rows, columns, 1):
                raise DicomError(
                    f'the JPEG inside has {height} x {width} pixels and {components} components, '
                    f'the tags say {rows} x {columns} and 1; export the image again'
                )
            return precision
        else:
            position += 2 + length
    raise DicomError('the JPEG pixel data has no frame header; copy the file again')


def _display(pixels: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values to display values, in the sense of MONOCHROME2."""
    bits = dataset.BitsStored
    lowest = -(1 << bits - 1) if dataset.PixelRepresentation else 0
    highest = lowest + (1 << bits) - 1
    padding = _padding(pixels, dataset)
    used = pixels if padding is None else pixels[~padding]
    if not used.size:
        return np.zeros(pixels.shape, np.uint8 if bits <= 8 else np.uint16)
    possible = np.iinfo(pixels.dtype)
    if bits <= 8 and lowest <= possible.min and possible.max <= highest:
        low, high = lowest, highest  # of every image with 8 of 8 bits: nothing to look for
    else:
        low, high = int(used.min()), int(used.max())
    if low < lowest or high > highest:
        # Bits above those stored are not part of the pixel (PS3.5 8.1.1): often old overlays.
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
    """pixels - low as indices. Below `low` (only padding is) they wrap around: clip them."""
    unsigned = np.dtype(pixels.dtype.str.replace('i', 'u'))  # in which no difference overflows
    first = np.array(low % (1 << 8 * unsigned.itemsize), unsigned)
    return (pixels.view(unsigned) - first).astype(np.intp)


def _padding(pixels: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Where the pixels are padding (PS3.3 C.7.5.1.1.2), or None where none is."""
    first = dataset.get('PixelPaddingValue')
    if first is None:
        return None
    last = dataset.get('PixelPaddingRangeLimit')
    low, high = sorted((int(first), int(first if last is None else last)))
    padding = (pixels >= low) & (pixels <= high)
    return padding if padding.any() else None


def _transform(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Modality, VOI and inversion for stored values: int64 of any shape to uint16, 0..65535."""
    values = _modality(stored, dataset).astype(np.float64)
    if not np.isfinite(values).all():
        raise DicomError('its rescale slope or intercept is absurd; export the image again')
    center, width = _first(dataset, 'WindowCenter'), _first(dataset, 'WindowWidth')
    function = str(dataset.get('VOILUTFunction') or 'LINEAR').upper()
    if dataset.get('VOILUTSequence'):
        shown, bits = _look_up(values, dataset.VOILUTSequence[0], dataset)
        unit = shown / ((1 << bits) - 1)
    # Widths that the standard forbids occur; such a window says nothing.
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
    with np.errstate(over='ignore'):  # the caller looks for infinity
        return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _look_up(
    values: np.ndarray, item: pydicom.Dataset, dataset: pydicom.Dataset
) -> tuple[np.ndarray, int]:
    """Applies one item of a LUT sequence (PS3.3 C.11.1.1.1); its output and how many bits it has.

    Not pydicom's functions, which wrap around in 8-bit tables of more than 256 entries.
    """
    entries, first, bits = map(int, item.LUTDescriptor)
    entries = entries or 1 << 16  # 65,536 does not fit the tag
    data = item.LUTData
    if isinstance(data, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        packed = len(data) < 2 * entries  # 8-bit entries may come two in a word
        data = np.frombuffer(data, 'u1' if packed else '<u2' if little else '>u2')
    data = np.atleast_1d(data)[:entries]
    if len(data) < entries or not 1 <= bits <= 16:
        raise DicomError(
            f'its lookup table has {len(data)} of {entries} entries and {bits} bits; '
            'export the image again'
        )
    return data[np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)], bits


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """A window's output as a share of its range; source: PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == 'SIGMOID':
        # The same curve as 1 / (1 + exp(-4 (x - c) / w)), without its overflow.
        return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)
    if function == 'LINEAR':
        center, width = center - 0.5, width - 1
    elif function != 'LINEAR_EXACT':
        raise DicomError(
            'its VOI LUT function is none of LINEAR, LINEAR_EXACT and SIGMOID; export it again'
        )
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first of a tag's numbers (a file may offer several windows), None where there is none."""
    value = dataset.get(keyword)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if value else None
    if value is None or value == '':
        return None
    if not math.isfinite(value):
        raise DicomError(f'its {keyword} is not a finite number; export the image again')
    return float(value)
