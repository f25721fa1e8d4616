"""Picture files: what is read must be what Pillow reads."""

import io
import pathlib
import zlib

import cv2
import numpy as np
from PIL import Image, ImageOps

from pneumojax.data.files import inputs
from pneumojax.data.phantoms import phantom
from tests.fuzz import mutate
from tests.fuzz.worker import Wrong, refused

MAX_PIXELS = 4_000_000


class Picture:
    """Whole files, damaged anywhere."""

    def __init__(self, folder: pathlib.Path):
        self.path = folder / 'input'
        grey = phantom.draw(np.random.default_rng(2), 64, True).image[:, :50].copy()
        deep = grey.astype(np.uint16) * 200 + 7
        rotated, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(grey).save(rotated, 'JPEG', exif=exif)
        progressive, palette, small, interlaced = (io.BytesIO() for _ in range(4))
        Image.fromarray(grey).save(progressive, 'JPEG', progressive=True)
        Image.fromarray(grey).convert('P').save(palette, 'PNG')
        Image.fromarray(grey > 99).save(small, 'PNG')
        Image.fromarray(grey).save(interlaced, 'PNG', compress_level=0)
        self.seeds = [
            *(cv2.imencode('.png', pixels)[1].tobytes() for pixels in (grey, deep)),
            cv2.imencode('.png', cv2.merge([grey] * 4))[1].tobytes(),
            cv2.imencode('.jpg', grey)[1].tobytes(),
            cv2.imencode('.jpg', cv2.merge([grey] * 3))[1].tobytes(),
            *(b.getvalue() for b in (rotated, progressive, palette, small, interlaced)),
            png_bomb(), scans_bomb(progressive.getvalue()),
        ]  # fmt: skip
        self.seeds += [turned(grey, n, kind) for n in range(10) for kind in ('JPEG', 'PNG')]
        self.seeds += others(grey, deep)
        self.seeds += [
            self.seeds[n] + tail for n in (0, 3) for tail in (bytes(9), b'x', bytes(4096))
        ]

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One damaged file; half of the PNG files get right checksums again."""
        made = mutate.data(rng, self.seeds[int(rng.integers(len(self.seeds)))], self.seeds)
        if made.startswith(b'\x89PNG') and rng.integers(2):
            made = with_checksums(made)
        return {'input': made}

    def check(self, case: dict[str, bytes]) -> str:
        """Read it as `predict` does."""
        self.path.write_bytes(case['input'])
        try:
            image = inputs.read(self.path, max_pixels=MAX_PIXELS).image
        except (inputs.Skipped, inputs.Unreadable) as error:
            return refused(error)
        try:
            reference = Image.open(io.BytesIO(case['input']))
            reference.load()
        except Exception as error:
            if readable(with_checksums(case['input'], (b'eXIf',))):
                return 'read, where Pillow refuses the checksum of a chunk about the picture'
            if 'MAX_TEXT_CHUNK' in str(error):
                return 'read, without the text that Pillow refuses'
            raise Wrong(f'read, but Pillow says {type(error).__name__}: {error}') from error
        shown = upright(reference)
        shape = shown.size[::-1]
        if image.shape != shape:
            raise Wrong(f'shape {image.shape}, Pillow says {shape}')
        if reference.mode != 'L':
            return 'read, of the right shape'
        if not np.array_equal(image, np.asarray(shown)):
            raise Wrong('pixels differ from those of Pillow')
        return 'read, pixel for pixel as Pillow'


def turned(grey: np.ndarray, orientation: int, kind: str) -> bytes:
    """A picture that says how to turn it; 0 and 9 are no such numbers."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(grey).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def others(grey: np.ndarray, deep: np.ndarray) -> list[bytes]:
    """TIFF, BMP, WebP and JPEG 2000 files of every kind that is read, and of some that are not."""
    images = {
        name: Image.fromarray(pixels)
        for name, pixels in (('L', grey), ('I;16', deep), ('RGB', cv2.merge([grey] * 3)))
    }
    images |= {mode: images['L'].convert(mode) for mode in ('P', '1', 'LA', 'F')}
    kinds = [
        *(('TIFF', mode, {'compression': how})
          for mode in ('L', 'I;16', 'RGB') for how in (None, 'tiff_lzw', 'tiff_deflate')),
        *(('TIFF', 'L', {'compression': how}) for how in ('packbits', 'jpeg')),
        *(('TIFF', mode, {}) for mode in ('P', '1', 'LA', 'F')),
        ('TIFF', 'L', {'tiffinfo': {262: 0, 274: 6}}), ('TIFF', 'L', {'big_tiff': True}),
        *(('BMP', mode, {}) for mode in ('L', 'RGB', 'P', '1')),
        *(('WEBP', 'RGB', {'lossless': lossless}) for lossless in (True, False)),
        *(('JPEG2000', mode, {}) for mode in ('L', 'I;16', 'RGB', 'LA')),
        ('JPEG2000', 'L', {'tile_size': (16, 16), 'irreversible': True}),
    ]  # fmt: skip
    made = []
    for kind, mode, options in kinds:
        buffer = io.BytesIO()
        images[mode].save(buffer, kind, **options)
        made.append(buffer.getvalue())
    for kind in ('TIFF', 'WEBP'):  # several pages or frames
        buffer = io.BytesIO()
        images['L'].save(buffer, kind, save_all=True, append_images=[images['L'].rotate(180)])
        made.append(buffer.getvalue())
    return made


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says, or as it is where Pillow finds its EXIF damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except SyntaxError:
        return image


def readable(content: bytes) -> bool:
    """Whether Pillow reads it."""
    try:
        Image.open(io.BytesIO(content)).load()
    except Exception:
        return False
    return True


def with_checksums(png: bytes, kinds: tuple[bytes, ...] | None = None) -> bytes:
    """A PNG file whose chunks, of all kinds or of some, have the checksums they should have."""
    result, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4])
        if at + 12 + length > len(png):
            break
        body = png[at + 4 : at + 8 + length]
        checksum = png[at + 8 + length : at + 12 + length]
        right = zlib.crc32(body).to_bytes(4)
        result += png[at : at + 4] + body
        result += right if kinds is None or body[:4] in kinds else checksum
        at += 12 + length
    return bytes(result + png[at:])


def png_bomb() -> bytes:
    """A text chunk that inflates to 512 MiB, in a small grey picture."""
    code = cv2.imencode('.png', np.full((8, 8), 9, np.uint8))[1].tobytes()
    packer = zlib.compressobj(9)
    body = b'zTXtx\0\0' + b''.join(packer.compress(bytes(1 << 22)) for _ in range(128))
    body += packer.flush()
    chunk = (len(body) - 4).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    return code[:33] + chunk + code[33:]


def scans_bomb(progressive: bytes) -> bytes:
    """A progressive JPEG file of 2000 x 2000 pixels whose last scan comes 3,000 times."""
    wide = bytearray(progressive)
    at = wide.index(b'\xff\xc2') + 5
    wide[at : at + 4] = (2000).to_bytes(2) * 2
    scan = bytes(wide[wide.rindex(b'\xff\xda') : -2])
    return bytes(wide[:-2]) + scan * 3000 + b'\xff\xd9'


MAKE = {'picture': Picture}
