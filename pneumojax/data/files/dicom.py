"""One DICOM file in, one grey image out, bright where the radiograph is meant to look bright.

What display values are made of the stored ones, and in which order, is told in `display`.
"""

import contextlib
import io
import math
import os
import threading
import zlib

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.tag import Tag

from pneumojax.data.files import codestreams, display, headers, jpeg12, sandbox, strict_jpeg
from pneumojax.data.files.plain_dicom import Plain, take_apart
from pneumojax.system import limits
from pneumojax.system.limits import MAX_PIXELS

_REQUIRED = (
    'Rows', 'Columns', 'SamplesPerPixel', 'PhotometricInterpretation',
    'BitsAllocated', 'BitsStored', 'PixelRepresentation', 'PixelData',
)  # fmt: skip
_OPTIONAL = (
    'NumberOfFrames', 'PixelPaddingValue', 'PixelPaddingRangeLimit', 'ModalityLUTSequence',
    'RescaleSlope', 'RescaleIntercept', 'VOILUTSequence', 'VOILUTFunction', 'WindowCenter',
    'WindowWidth', *headers.SIZES,
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
# The preferred of pydicom's plugins; GDCM's own JPEG code is old, and pydicom would take it first.
_PLUGINS = ('pydicom', 'pyjpegls', 'pylibjpeg', 'pillow', 'gdcm')
# Larger images are made one at a time: in between they take some ten times their pixels.
_LARGE = 16_000_000
one_large: contextlib.AbstractContextManager = threading.Lock()
_DEFLATED = uid.DeflatedExplicitVRLittleEndian.encode()
_EXPORT_AGAIN = 'export the image again as a single-frame grey DICOM file'


class DicomError(ValueError):
    """A file that gives no image; one line that names the file, the reason and what to do."""


class TooManyPixels(DicomError):
    """It claims more pixels than are allowed."""


def read(
    path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS, square: bool = False
) -> np.ndarray:
    """Reads a single-frame grey DICOM file in the sense of MONOCHROME2 (larger is brighter).

    Args:
      path: a DICOM file, of any transfer syntax that an installed decoder reads. JPEG Baseline is
        always decoded by OpenCV, so that every machine gets the same bits.
      max_pixels: refuse files that claim more pixels than this, before any memory is taken.
      square: refuse images whose pixels are not square, see `headers.aspect`.

    Returns:
      uint8 [H, W] for up to 8 bits stored wherever that loses nothing (8-bit images without a
      window are unchanged), else uint16 [H, W] over the full range 0..65535.

    Raises:
      DicomError: anything that keeps the file from being read.
    """
    try:
        dataset = _open(path, max_pixels)
        if isinstance(dataset, Plain):
            with _turn(dataset.rows * dataset.columns):
                return strict_jpeg.decode(dataset.frame)
        if square:
            _check_square(dataset)
        with _turn(dataset.Rows * dataset.Columns):
            return display.grey(_decode(dataset), dataset)
    except DicomError as error:
        raise type(error)(f'{path}: {error}') from error.__cause__
    except (codestreams.StreamError, display.DisplayError) as error:
        raise DicomError(f'{path}: {error}') from None
    # The file is foreign input: whatever the parsers below raise means that it is damaged.
    # Their messages may quote the file, which names a patient, so only the type is passed on.
    except Exception as error:
        raise DicomError(
            f'{path}: damaged or unusual DICOM file ({type(error).__name__}); {_EXPORT_AGAIN}'
        ) from error


def _check_square(dataset) -> None:
    try:
        aspect = headers.aspect(dataset)
    except Exception:  # of many kinds; what cannot be read says nothing, as for prediction
        return
    if aspect != 1:
        raise DicomError(
            f'its pixels are not square (height over width {aspect:.3g}); resample the image and '
            'its mask alike so that they are'
        )


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


def check_file(path: str | os.PathLike) -> None:
    """Raises DicomError where reading a file would take too much, and OSError where there is none.

    pydicom inflates a deflated file whole, and reads a thousand bytes into a gigabyte of zeros.
    """
    try:
        limits.check_file(path, limits.MAX_IMAGE_BYTES)
        with limits.BoundedFile(path) as file:
            _check_inflated(file)
    except limits.TooLarge as error:
        raise DicomError(f'{error}; {_EXPORT_AGAIN}') from None


def _check_inflated(file) -> None:
    """Raises TooLarge for a deflated file that holds too much; leaves others at their start."""
    # A syntax is spelt out in the file: looking for it there takes half the time of parsing.
    if isinstance(file, io.BytesIO) and _DEFLATED not in file.getvalue():
        return
    if _syntax(file) == uid.DeflatedExplicitVRLittleEndian:
        unpacker, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not unpacker.eof and (piece := unpacker.unconsumed_tail or file.read(1 << 16)):
            total += len(unpacker.decompress(piece, 1 << 20))
            limits.check_bytes(total, limits.MAX_IMAGE_BYTES, 'the inflated file')
    file.seek(0)


def _syntax(file):
    """As the file's meta information says; leaves the file behind that."""
    try:
        pydicom.filereader.read_preamble(file, False)
        return pydicom.filereader._read_file_meta_info(file).get('TransferSyntaxUID')
    except OSError:
        raise
    except Exception:  # reading it all will say so too
        return None


def _turn(pixels: int):
    return one_large if pixels > _LARGE else contextlib.nullcontext()


def _open(path: str | os.PathLike, max_pixels: int) -> Plain | pydicom.Dataset:
    """Reads only the tags that make the image, none of which identifies anyone."""
    try:
        with limits.open_file(path, limits.MAX_IMAGE_BYTES) as file:
            plain = take_apart(file.getvalue()) if isinstance(file, io.BytesIO) else None
            if plain and plain.rows * plain.columns <= max_pixels and _has_8_bits(plain):
                return plain
            _check_inflated(file)
            dataset = pydicom.dcmread(file, specific_tags=_TAGS)
    except limits.TooLarge as error:
        raise DicomError(f'{error}; {_EXPORT_AGAIN}') from None
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
    tags = {keyword: dataset.get(keyword) for keyword in _REQUIRED}  # each costs microseconds
    missing = [keyword for keyword, value in tags.items() if value is None]
    if missing:
        raise DicomError(f'the tags {", ".join(missing)} are missing; {_EXPORT_AGAIN}')
    frames = int(dataset.get('NumberOfFrames') or 1)
    if frames != 1:
        raise DicomError(f'has {frames} frames, expected 1; {_EXPORT_AGAIN}')
    numbers = ('Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'BitsStored')
    odd = [keyword for keyword in numbers if not isinstance(tags[keyword], int)]
    if odd:
        raise DicomError(f'the tags {", ".join(odd)} are no whole numbers; {_EXPORT_AGAIN}')
    rows, columns, samples, allocated, stored = (tags[keyword] for keyword in numbers)
    if samples != 1 or tags['PhotometricInterpretation'] not in ('MONOCHROME1', 'MONOCHROME2'):
        raise DicomError(
            f'is a colour image ({samples} samples per pixel), expected MONOCHROME1 or '
            f'MONOCHROME2; {_EXPORT_AGAIN}'
        )
    if rows < 1 or columns < 1:
        raise DicomError(f'claims {rows} x {columns} pixels; {_EXPORT_AGAIN}')
    if rows * columns > max_pixels:
        raise TooManyPixels(
            f'claims {rows} x {columns} pixels, more than the limit of {max_pixels}; '
            'downsample the image first'
        )
    if not 1 <= stored <= allocated <= 32:
        raise DicomError(f'stores {stored} of {allocated} bits, expected 1 to 32; {_EXPORT_AGAIN}')
    if tags['PixelRepresentation'] not in (0, 1):
        raise DicomError(
            'its pixels are neither signed nor unsigned (tag PixelRepresentation, 0 or 1); '
            f'{_EXPORT_AGAIN}'
        )
    return dataset


def _has_8_bits(plain: Plain) -> bool:
    shape = plain.rows, plain.columns
    return codestreams.check(plain.frame, uid.JPEGBaseline8Bit, *shape, 8) == 8


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
    if not syntax.is_encapsulated:
        expected = math.ceil(rows * columns * dataset.BitsAllocated / 8)
        if len(dataset.PixelData) < expected:
            raise DicomError(
                f'cut short: {len(dataset.PixelData)} of {expected} bytes of pixel data are '
                'there; copy the file again'
            )
        pixels = dataset.pixel_array
    else:
        pixels = _decode_frame(dataset, syntax, decoder)
    if pixels.shape != (rows, columns):
        raise DicomError(
            f'decodes to shape {pixels.shape}, its tags say {rows} x {columns}; {_EXPORT_AGAIN}'
        )
    return pixels


def _decode_frame(dataset, syntax, decoder) -> np.ndarray:
    rows, columns = dataset.Rows, dataset.Columns
    packages = _TO_INSTALL.get(syntax, 'python-gdcm')
    jpeg = syntax in codestreams.JPEG
    available = () if jpeg else decoder.available_plugins
    plugin = next((name for name in _PLUGINS if name in available), None)
    if plugin is None and not jpeg:
        raise DicomError(f'no decoder for {syntax.name} is installed; run: pip install {packages}')
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    bits = codestreams.check(frame, syntax, rows, columns, dataset.BitsAllocated)
    if jpeg:
        if bits == 8:
            pixels = strict_jpeg.decode(frame)
            return pixels.view(np.int8) if dataset.PixelRepresentation else pixels
        if bits != 12 or not jpeg12.AVAILABLE:
            raise DicomError(f'JPEG of {bits} bits cannot be decoded; run: pip install {packages}')
        plugin = jpeg12.NAME
    keywords = 'Rows', 'Columns', 'BitsAllocated', 'BitsStored', 'PixelRepresentation'
    tags = {keyword: int(dataset[keyword].value) for keyword in keywords}
    try:
        return sandbox.decode(frame, {**tags, 'TransferSyntaxUID': syntax, 'Plugin': plugin})
    except sandbox.DecoderError as error:
        raise DicomError(
            f'the {syntax.name} pixel data cannot be decoded ({error}); copy the file again, or '
            f'try another decoder: pip install {packages}'
        ) from error
