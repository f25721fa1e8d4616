"""The helper process of `sandbox`: decodes frames until its caller ends."""

import contextlib
import json
import os
import pathlib
import sys

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array

from pneumojax.data.files import jpeg12, pillow_decoder


def main() -> None:
    """Answers each request on standard input with the pixels on standard output."""
    requests = os.fdopen(os.dup(0), 'rb')
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # output of decoders must not mix with the answers
    while line := requests.readline():
        tags = json.loads(line)
        frame = requests.read(tags['bytes'])
        try:
            _limit(tags['memory'])
            pixels = np.ascontiguousarray(decode(frame, tags))
        except MemoryError:
            answer, content = {'error': 'needs too much memory'}, b''
        # Messages may quote the file, so only the type is passed on.
        except Exception as error:
            answer, content = {'error': type(error).__name__}, b''
        else:
            content = pixels.tobytes()
            answer = {'dtype': pixels.dtype.str, 'shape': pixels.shape}
        answers.write(json.dumps({**answer, 'bytes': len(content)}).encode() + b'\n' + content)
        answers.flush()


def decode(frame: bytes, tags: dict) -> np.ndarray:
    """Decodes one frame with the named plugin of pydicom, with Pillow, or 12-bit JPEG with GDCM."""
    if tags['Plugin'] == pillow_decoder.NAME:
        return pillow_decoder.decode(frame, tags['Kind'])
    if tags['Plugin'] == jpeg12.NAME:
        return jpeg12.decode(frame, tags['Rows'], tags['Columns'])
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(tags['TransferSyntaxUID'])
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    for keyword in (
        'Rows', 'Columns', 'BitsAllocated', 'BitsStored', 'PixelRepresentation', 'SamplesPerPixel',
        'PhotometricInterpretation', 'PlanarConfiguration',
    ):  # fmt: skip
        if keyword in tags:
            setattr(dataset, keyword, tags[keyword])
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = encapsulate([frame])
    dataset['PixelData'].VR = 'OB'
    return pixel_array(dataset, raw=True, correct_unused_bits=False, decoding_plugin=tags['Plugin'])


def _limit(more: int) -> None:
    """Limits the growth of the address space to this many bytes (POSIX only)."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))


if __name__ == '__main__':
    main()
    sys.exit()
