"""Reads one DICOM file as one grey image that is bright where a viewer shows it bright.

`display` explains how stored values become display values.
"""

import contextlib
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
from pydicom.pixels.decoders.base import Decoder
from pydicom.tag import Tag

from pneumojax.data.files import codestreams, display, headers, jpeg12, sandbox, strict_jpeg
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
# Only the tags that make the image are read, none of which identifies anyone.
_TAGS = [Tag(keyword) for keyword in (*_REQUIRED, *_OPTIONAL)]
# Codecs under permissive licences; pylibjpeg-libjpeg would also work, but is GPLv3.
_TO_INSTALL = {
    uid.JPEG2000Lossless: 'pillow',
    uid.JPEG2000: 'pillow',
    uid.JPEGLSLossless: 'pyjpegls',
    uid.JPEGLSNearLossless: 'pyjpegls',
    uid.HTJ2KLossless: 'pylibjpeg pylibjpeg-openjpeg',
    uid.HTJ2KLosslessRPCL: 'pylibjpeg pylibjpeg-openjpeg',
    uid.HTJ2K: 'pylibjpeg pylibjpeg-openjpeg',
}
# pydicom's plugins in our order of preference. GDCM, which pydicom would take first, is last
# because its own JPEG code is old.
_PLUGINS = ('pydicom', 'pyjpegls', 'pylibjpeg', 'pillow', 'gdcm')
# Decoding takes about ten times the memory of the pixels, so large images take turns.
_LARGE = 16_000_000  # pixels
_large_image_lock = threading.Lock()
_DEFLATED, _SMALL = uid.DeflatedExplicitVRLittleEndian, 1 << 20  # bytes
_EXPORT_AGAIN = 'export the image again as a single-frame grey DICOM file'


class DicomError(ValueError):
    """A file that gives no image; the message is one line with the reason and what to do."""


class TooManyPixels(DicomError):
    """The file claims more pixels than allowed."""


def read(
    path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS, square: bool = False
) -> np.ndarray:
    """Reads a single-frame grey DICOM file as MONOCHROME2 (larger values are brighter).

    Args:
      path: a DICOM file in any transfer syntax for which a decoder is installed. JPEG Baseline is
        always decoded by libjpeg-turbo, so every machine gets the same bits.
      max_pixels: files that claim more pixels are refused before any memory is allocated.
      square: refuse images whose pixels are not square, see `headers.aspect`.

    Returns:
      uint8 [H, W] for up to 8 stored bits wherever that loses nothing (8-bit images without a
      window are unchanged), otherwise uint16 [H, W] over the full range 0..65535.

    Raises:
      DicomError: the file cannot be read; the message starts with its path.
    """
    try:
        with limits.BoundedFile(path) as file:
            check(file)
            return decode(file, max_pixels=max_pixels, square=square)
    except DicomError as error:
        raise type(error)(f'{path}: {error}') from error.__cause__
    except FileNotFoundError as error:
        raise DicomError(f'{path}: no such file; check the path') from error
    except OSError as error:
        raise DicomError(
            f'{path}: cannot be read ({error.strerror}); expected a DICOM file'
        ) from error


def check(file: limits.BoundedFile) -> None:
    """Raises DicomError if reading the file would take too much memory.

    pydicom inflates a deflated file as a whole, and a kilobyte of that can hold a gigabyte of
    zeros. The file is left at its start.
    """
    try:
        limits.check_bytes(file.size, limits.MAX_IMAGE_BYTES)
        # A search of a small file takes a tenth of the time of parsing its meta information.
        maybe = file.size > _SMALL or _DEFLATED.encode() in file.read()
        if maybe and _transfer_syntax(file) == _DEFLATED:
            unpacker, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
            while not unpacker.eof and (piece := unpacker.unconsumed_tail or file.read(1 << 16)):
                total += len(unpacker.decompress(piece, 1 << 20))
                limits.check_bytes(total, limits.MAX_IMAGE_BYTES, 'the inflated file')
    except limits.TooLarge as error:
        raise DicomError(f'{error}; {_EXPORT_AGAIN}') from None
    except zlib.error:  # reading the whole file will report it
        pass
    file.seek(0)


def decode(
    file: limits.BoundedFile, *, max_pixels: int = MAX_PIXELS, square: bool = False
) -> np.ndarray:
    """Reads the image from an open file that has passed `check`.

    Arguments and result are those of `read`; errors do not name the file.
    """
    try:
        dataset = _parse(file, max_pixels)
        if square:
            _check_square(dataset)
        large = dataset.Rows * dataset.Columns > _LARGE
        with _large_image_lock if large else contextlib.nullcontext():
            return display.grey(_stored_values(dataset), dataset)
    except (DicomError, OSError):
        raise
    except (codestreams.StreamError, display.DisplayError) as error:
        raise DicomError(str(error)) from None
    # Any other exception means that the file is damaged. Messages of the libraries may quote the
    # file, which names a patient, so only the type is passed on.
    except Exception as error:
        raise DicomError(
            f'damaged or unusual DICOM file ({type(error).__name__}); {_EXPORT_AGAIN}'
        ) from error


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Converts an image from `read` to 8 bits.

    Args:
      image: uint8, which is returned unchanged, or uint16 over 0..65535; any shape.

    Returns:
      uint8 of the same shape: the nearest integer to image / 257 (there are no ties).

    Raises:
      ValueError: the image has another type.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ValueError(f'expected uint8 or uint16 pixels, not {image.dtype}')
    # Equal to (image + 128) // 257 and ten times faster; float32 suffices as there are no ties.
    flat = image.reshape(1, -1)
    return cv2.convertScaleAbs(flat, alpha=1 / 257).reshape(image.shape) if flat.size else flat


def _parse(file: limits.BoundedFile, max_pixels: int) -> pydicom.Dataset:
    """Reads the tags that make the image and checks that they describe one grey frame.

    Raises:
      DicomError: they do not.
      Exception: whatever pydicom raises on a damaged file.
    """
    try:
        content = limits.in_memory(file)
        dataset = pydicom.dcmread(content, specific_tags=_TAGS)
    except pydicom.errors.InvalidDicomError as error:
        raise DicomError(
            'not a DICOM file (no "DICM" at byte 128); remove it, or export it as DICOM Part 10'
        ) from error
    if not dataset.get('PixelData'):
        raise DicomError(
            'no pixel data; the file is cut short or holds no image: copy it again or '
            f'{_EXPORT_AGAIN}'
        )
    tags = {keyword: dataset.get(keyword) for keyword in _REQUIRED}
    missing = [keyword for keyword, value in tags.items() if value is None]
    if missing:
        raise DicomError(f'the tags {", ".join(missing)} are missing; {_EXPORT_AGAIN}')
    frames = int(dataset.get('NumberOfFrames') or 1)
    if frames != 1:
        raise DicomError(f'has {frames} frames, expected 1; {_EXPORT_AGAIN}')
    numbers = ('Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'BitsStored')
    odd = [keyword for keyword in numbers if not isinstance(tags[keyword], int)]
    if odd:
        raise DicomError(f'the tags {", ".join(odd)} are not whole numbers; {_EXPORT_AGAIN}')
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
            'its pixels are neither signed nor unsigned (the tag PixelRepresentation must be 0 or '
            f'1); {_EXPORT_AGAIN}'
        )
    return dataset


def _transfer_syntax(file: limits.BoundedFile) -> str | None:
    """The syntax in the file's meta information; leaves the file at the end of that."""
    try:
        file.seek(0)
        pydicom.filereader.read_preamble(file, False)
        return pydicom.filereader._read_file_meta_info(file).get('TransferSyntaxUID')
    except OSError:
        raise
    except Exception:  # reading the whole file will report it
        return None


def _check_square(dataset: pydicom.Dataset) -> None:
    try:
        aspect = headers.aspect(dataset)
    except Exception:  # an unreadable tag states nothing, as in prediction
        return
    if aspect != 1:
        raise DicomError(
            f'its pixels are not square (height over width {aspect:.3g}); resample the image and '
            'its mask alike so that they are'
        )


def _stored_values(dataset: pydicom.Dataset) -> np.ndarray:
    """Decodes the pixels: an integer array [H, W]."""
    rows, columns = dataset.Rows, dataset.Columns
    syntax = dataset.file_meta.get('TransferSyntaxUID')
    if syntax is None:
        raise DicomError(f'does not state its transfer syntax; {_EXPORT_AGAIN}')
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DicomError(f'its transfer syntax cannot be decoded; {_EXPORT_AGAIN}') from None
    if not syntax.is_encapsulated:
        expected = math.ceil(rows * columns * dataset.BitsAllocated / 8)
        if len(dataset.PixelData) < expected:
            raise DicomError(
                f'cut short: {len(dataset.PixelData)} of {expected} bytes of pixel data; copy the '
                'file again'
            )
        pixels = dataset.pixel_array
    else:
        pixels = _decode_frame(dataset, syntax, decoder)
    if pixels.shape != (rows, columns):
        raise DicomError(
            f'decodes to shape {pixels.shape}, its tags say {rows} x {columns}; {_EXPORT_AGAIN}'
        )
    return pixels


def _decode_frame(dataset: pydicom.Dataset, syntax: uid.UID, decoder: Decoder) -> np.ndarray:
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
