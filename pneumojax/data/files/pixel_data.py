"""Decodes the pixel data of a DICOM file to the values that its tags and stream describe."""

import math
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.decoders.base import Decoder

from pneumojax.data.files import codestreams, headers, jpeg12, sandbox, strict_jpeg
from pneumojax.data.files.codestreams import StreamError

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
_LOSSY = (*codestreams.JPEG, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
_OVERSHOOT = 0.25  # of the range; what lossy compression adds at sharp edges
_AGAIN = 'export the image again as a single-frame grey DICOM file'


class Stored(NamedTuple):
    """What the file stores."""

    pixels: np.ndarray  # integers [H, W], or [H, W, 3] for three samples; higher bits may be set
    bits: int  # of a pixel, from bit 0
    notes: tuple[str, ...]


def decode(dataset: pydicom.Dataset) -> Stored:
    """Decodes the one frame of a data set whose tags have been checked.

    Raises:
      StreamError: the data are damaged, disagree with the tags or have no decoder here.
      Exception: of any other type, with the same meaning.
    """
    syntax = dataset.file_meta.get('TransferSyntaxUID')
    if syntax is None:
        raise StreamError(f'does not state its transfer syntax; {_AGAIN}')
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise StreamError(f'its transfer syntax cannot be decoded; {_AGAIN}') from None
    precision = None
    if syntax.is_encapsulated:
        pixels, precision = _decode_frame(dataset, syntax, decoder)
    else:
        pixels = _native(dataset)
    samples = dataset.SamplesPerPixel
    expected = (dataset.Rows, dataset.Columns, *([samples] if samples > 1 else []))
    if pixels.shape != expected:
        raise StreamError(
            f'decodes to shape {pixels.shape}, its tags say {dataset.Rows} x {dataset.Columns}; '
            f'{_AGAIN}'
        )
    if precision is None:
        return _from_cells(pixels, dataset)
    if precision == dataset.BitsStored:
        return Stored(pixels, precision, ())
    return _from_stream(pixels, precision, dataset, syntax in _LOSSY)


def _native(dataset: pydicom.Dataset) -> np.ndarray:
    samples = dataset.SamplesPerPixel
    if headers.photometric(dataset) == 'YBR_FULL_422':
        samples = 2  # two samples of colour for each two pixels
    bits = dataset.Rows * dataset.Columns * dataset.BitsAllocated * samples
    expected = math.ceil(bits / 8)
    if len(dataset.PixelData) < expected:
        raise StreamError(
            f'cut short: {len(dataset.PixelData)} of {expected} bytes of pixel data; copy the '
            'file again'
        )
    return pixel_array(dataset, raw=True, correct_unused_bits=False)


def _from_cells(pixels: np.ndarray, dataset: pydicom.Dataset) -> Stored:
    """Moves the stored bits of each cell to bit 0, see PS3.5 8.1.1."""
    bits, allocated = dataset.BitsStored, dataset.BitsAllocated
    shift = _shift(dataset)
    if 0 <= shift <= allocated - bits:
        return Stored(pixels >> shift if shift else pixels, bits, ())
    note = 'HighBit contradicts BitsStored and BitsAllocated and is ignored'
    return Stored(pixels, bits, (note,))


def _shift(dataset: pydicom.Dataset) -> int:
    """How far the stored bits are above bit 0; negative for a HighBit that makes no sense."""
    try:
        high = dataset.get('HighBit')
        return 0 if high is None or high == '' else int(high) + 1 - dataset.BitsStored
    except Exception:  # of another type or form
        return -1


def _from_stream(
    pixels: np.ndarray, precision: int, dataset: pydicom.Dataset, lossy: bool
) -> Stored:
    """Finds the bits of a pixel where the precision of the stream is not BitsStored.

    The stream is right then (PS3.5 8.2). But encoders of whole cells, like dcmtk's, state the bits
    allocated as the precision, and the tags are right if the values fit into the bits stored.
    """
    bits, signed = dataset.BitsStored, bool(dataset.PixelRepresentation)
    note = f'the compressed pixels have {precision} bits, which are shown, not {bits} as tagged'
    if precision < bits:
        return Stored(pixels, precision, (note,))
    lowest = -(1 << bits - 1) if signed else 0
    span = (1 << bits) - 1
    half = 1 << precision - 1
    values = pixels.astype(np.int64)
    values = (values + half & 2 * half - 1) - half if signed else values & 2 * half - 1
    low, high = int(values.min()), int(values.max())
    if lowest <= low and high <= lowest + span:
        return Stored(values, bits, ())
    if low >= 0 and high <= span:  # signed, but the bits above the sign are 0
        return Stored(values, bits, ())
    shift = _shift(dataset)
    if 0 < shift <= precision - bits and not (values & (1 << shift) - 1).any():
        values >>= shift
        return Stored(values, bits, ())
    room = int(_OVERSHOOT * span) if lossy else 0
    if lowest - room <= low and high <= lowest + span + room:
        note = f'lossy compression exceeds the {bits} bits stored; such pixels are clipped'
        return Stored(values.clip(lowest, lowest + span), bits, (note,))
    return Stored(values, precision, (note,))


def _decode_frame(
    dataset: pydicom.Dataset, syntax: uid.UID, decoder: Decoder
) -> tuple[np.ndarray, int | None]:
    """Decodes a compressed frame; also gives the precision of its stream, None for RLE."""
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    packages = _TO_INSTALL.get(syntax, 'python-gdcm')
    jpeg = syntax in codestreams.JPEG
    available = () if jpeg else decoder.available_plugins
    plugin = next((name for name in _PLUGINS if name in available), None)
    if plugin is None and not jpeg:
        raise StreamError(f'no decoder for {syntax.name} is installed; run: pip install {packages}')
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    bits = codestreams.check(frame, syntax, rows, columns, dataset.BitsAllocated, samples)
    if jpeg:
        if bits == 8:
            pixels = strict_jpeg.decode(frame) if samples == 1 else strict_jpeg.decode_rgb(frame)
            return pixels.view(np.int8) if dataset.PixelRepresentation else pixels, bits
        if bits != 12 or samples > 1 or not jpeg12.AVAILABLE:
            raise StreamError(f'JPEG of {bits} bits cannot be decoded; run: pip install {packages}')
        plugin = jpeg12.NAME
    keywords = (
        'Rows', 'Columns', 'SamplesPerPixel', 'BitsAllocated', 'BitsStored', 'PixelRepresentation',
    )  # fmt: skip
    tags: dict[str, Any] = {keyword: int(dataset[keyword].value) for keyword in keywords}
    if bits is not None:
        # The decoders cut what exceeds the bits stored, or fill cells of the stream's size.
        tags['BitsStored'] = bits
        tags['BitsAllocated'] = 8 if bits <= 8 else 16 if bits <= 16 else 32
    tags['PhotometricInterpretation'] = headers.photometric(dataset)
    tags['PlanarConfiguration'] = int(dataset.get('PlanarConfiguration') or 0)
    try:
        return sandbox.decode(frame, {**tags, 'TransferSyntaxUID': syntax, 'Plugin': plugin}), bits
    except sandbox.DecoderError as error:
        raise StreamError(
            f'the {syntax.name} pixel data cannot be decoded ({error}); copy the file again, or '
            f'try another decoder: pip install {packages}'
        ) from error
