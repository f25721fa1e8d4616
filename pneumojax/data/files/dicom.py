"""Reads one DICOM file as one grey image that is bright where a viewer shows it bright.

`display` explains how stored values become display values.
"""

import contextlib
import os
import threading
import zlib
from typing import NamedTuple

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.tag import Tag

from pneumojax.data.files import (
    bare,
    codestreams,
    colour,
    display,
    display_tags,
    headers,
    pixel_data,
)
from pneumojax.system import limits
from pneumojax.system.limits import MAX_PIXELS

_REQUIRED = (
    'Rows', 'Columns', 'SamplesPerPixel', 'PhotometricInterpretation',
    'BitsAllocated', 'BitsStored', 'PixelRepresentation', 'PixelData',
)  # fmt: skip
_OPTIONAL = (
    'NumberOfFrames', 'PlanarConfiguration', *display_tags.KEYWORDS, *colour.PALETTE_TAGS,
    *headers.SIZES,
)  # fmt: skip
# Only the tags that make the image are read, none of which identifies anyone.
_TAGS = [Tag(keyword) for keyword in (*_REQUIRED, *_OPTIONAL)]
# By whether VRs are implicit, and the order of bytes is little endian.
_NATIVE = {
    (True, True): uid.ImplicitVRLittleEndian,
    (False, True): uid.ExplicitVRLittleEndian,
    (False, False): uid.ExplicitVRBigEndian,
}
# Decoding takes about ten times the memory of the pixels, so large images take turns.
_LARGE = 16_000_000  # pixels
_large_image_lock = threading.Lock()
_DEFLATED, _SMALL = uid.DeflatedExplicitVRLittleEndian, 1 << 20  # bytes
COLOUR = 'a colour image, not a radiograph'
_EXPORT_AGAIN = 'export the image again as a single-frame grey DICOM file'


class DicomError(ValueError):
    """A file that gives no image; the message is one line with the reason and what to do."""


class Colour(DicomError):
    """A colour image."""


class TooManyPixels(DicomError):
    """The file claims more pixels than allowed."""


class Decoded(NamedTuple):
    """An image, and what is doubtful about how it is shown."""

    image: np.ndarray  # as `read` returns it
    notes: tuple[str, ...]  # each a short phrase that quotes nothing from the file


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
    return read_with_notes(path, max_pixels=max_pixels, square=square).image


def read_with_notes(
    path: str | os.PathLike, *, max_pixels: int = MAX_PIXELS, square: bool = False
) -> Decoded:
    """Like `read`, and says what is doubtful about the image."""
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
) -> Decoded:
    """Reads the image from an open file that has passed `check`.

    Arguments and result are those of `read_with_notes`; errors do not name the file.
    """
    try:
        dataset, notes = _parse(file, max_pixels)
        if square:
            _check_square(dataset)
        large = dataset.Rows * dataset.Columns > _LARGE
        with _large_image_lock if large else contextlib.nullcontext():
            image, doubts = _grey(dataset)
        return Decoded(image, notes + doubts)
    except (DicomError, OSError):
        raise
    except codestreams.StreamError as error:
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


def why_not_grey(file: limits.BoundedFile, header: pydicom.Dataset) -> str | None:
    """What an image stored as colour is, if its channels differ; None for all others.

    Args:
      file: an open file that has passed `check`.
      header: from `headers.read`.
    """
    if headers.photometric(header) in ('', 'MONOCHROME1', 'MONOCHROME2'):
        return None
    try:
        decode(file)
    except Colour:
        return COLOUR
    except DicomError:  # reading it will report it
        pass
    return None


def _grey(dataset: pydicom.Dataset) -> Decoded:
    """The image of tags that have been checked."""
    if colour.is_stored_as_colour(dataset):
        try:
            stored = pixel_data.decode(dataset)
            pixels, bits = colour.grey(stored.pixels, stored.bits, dataset)
        except MemoryError:
            raise
        except Exception:  # what cannot be decoded is not known to be grey
            raise Colour(f'is {COLOUR}; {_EXPORT_AGAIN}') from None
        # Windows and rescaling are for grey images alone (PS3.3 C.11.2); the channels of colour and
        # the entries of a palette are display values, from black to white.
        top = (1 << bits) - 1
        whole = display_tags.Window(top / 2, top, 'LINEAR_EXACT')
        transformation = display_tags.Display(bits, signed=False, inverted=False, voi=whole)
        notes = stored.notes
    else:
        stored = pixel_data.decode(dataset)
        pixels = stored.pixels
        transformation, notes = display_tags.read(dataset, stored.bits)
        notes = stored.notes + notes
    image = display.grey(pixels, transformation)
    if display.is_nearly_uniform(image):
        notes += ('shown nearly uniform: its window, its tables or single pixels hide the rest',)
    return Decoded(image, notes)


def _parse(file: limits.BoundedFile, max_pixels: int) -> tuple[pydicom.Dataset, tuple[str, ...]]:
    """Reads the tags that make the image and checks that they describe one grey frame.

    Returns:
      The tags, and notes on them.

    Raises:
      DicomError: they do not.
      Exception: whatever pydicom raises on a damaged file.
    """
    try:
        content = limits.in_memory(file)
        force = bare.is_data_set(content.read(bare.BYTES))
        content.seek(0)
        dataset = pydicom.dcmread(content, specific_tags=_TAGS, force=force)
    except pydicom.errors.InvalidDicomError as error:
        raise DicomError(
            'not a DICOM file (no "DICM" at byte 128); remove it, or export it as DICOM Part 10'
        ) from error
    if not dataset.get('PixelData'):
        raise DicomError(
            'no pixel data; the file is cut short or holds no image: copy it again or '
            f'{_EXPORT_AGAIN}'
        )
    if (
        'TransferSyntaxUID' not in dataset.file_meta
        and not dataset['PixelData'].is_undefined_length
    ):
        # pydicom told by the first bytes how the tags are encoded, and so are native pixels.
        implicit, little = map(bool, dataset.original_encoding)
        dataset.file_meta.TransferSyntaxUID = _NATIVE[implicit, little]
    tags = {keyword: dataset.get(keyword) for keyword in _REQUIRED}
    missing = [keyword for keyword, value in tags.items() if value is None or value == '']
    if missing:
        raise DicomError(f'the tags {", ".join(missing)} are missing; {_EXPORT_AGAIN}')
    notes: tuple[str, ...] = ()
    frames = headers.frames(dataset)
    if frames is None:
        del dataset['NumberOfFrames']
        notes = ('NumberOfFrames makes no sense and is ignored',)
    elif frames != 1:
        raise DicomError(f'has {frames} frames, expected 1; {_EXPORT_AGAIN}')
    numbers = ('Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'BitsStored')
    odd = [keyword for keyword in numbers if not isinstance(tags[keyword], int)]
    if odd:
        raise DicomError(f'the tags {", ".join(odd)} are not whole numbers; {_EXPORT_AGAIN}')
    rows, columns, samples, allocated, stored = (tags[keyword] for keyword in numbers)
    photometric = headers.photometric(dataset)
    dataset.PhotometricInterpretation = photometric.replace('PALETTE_', 'PALETTE ')
    grey = samples == 1 and photometric in ('MONOCHROME1', 'MONOCHROME2')
    if not grey and not colour.is_stored_as_colour(dataset):
        raise Colour(
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
    return dataset, notes


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
