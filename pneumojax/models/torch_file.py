"""Reads the tensors of PyTorch's files without PyTorch, and without ever unpickling anything.

Such a file is a pickle, a program for a small stack machine, with the numbers of its tensors beside
it. Here the program's instructions are only looked at: dictionaries, lists, texts and tensors are
made of them, and any other class or function becomes a `Foreign`, which does nothing. So optimizer
states and hyperparameters of any class may stand beside the weights.

Formats: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py (both the archive of
version 1.6 and what came before it), https://docs.python.org/3/library/pickletools.html.
"""

import io
import math
import pathlib
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from pneumojax.system import limits

MAX_PICKLE_BYTES = 1 << 22  # 50 times that of a ResNet34 with its optimizer
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, Any] = {
    'Float': np.float32, 'Double': np.float64, 'Half': np.float16, 'BFloat16': ml_dtypes.bfloat16,
    'Long': np.int64, 'Int': np.int32, 'Short': np.int16, 'Char': np.int8, 'Byte': np.uint8,
    'Bool': np.bool_,
}  # fmt: skip


class Malformed(ValueError):
    """The file is damaged or not one of PyTorch's. The message is one line without the path."""


class Foreign:
    """Stands for an object of a class that is not read."""


class Storage(NamedTuple):
    """The numbers that tensors are views of; where they lie in the file is found by `key`."""

    dtype: Any
    key: str
    size: int  # how many numbers


class Tensor(NamedTuple):
    """A view of a storage, counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes as float32 or, if larger, as it is: what reading it takes."""
        return math.prod(self.shape) * max(4, np.dtype(self.storage.dtype).itemsize)


class _Global(NamedTuple):
    name: str  # 'module.name'


class TorchFile:
    """An opened file.

    Attributes:
      content: what was saved: dicts, lists, tuples, texts and numbers, with a `Tensor` for each
        dense tensor on whatever device and a `Foreign` for everything else.

    Raises:
      Malformed: the file is damaged or of another format.
      OSError: it cannot be read.
    """

    def __init__(self, path: pathlib.Path):
        self._stored: dict[str, np.ndarray] = {}  # all numbers, by the storage's key
        try:
            with limits.BoundedFile(path) as file:
                archived = zipfile.is_zipfile(file)
                file.seek(0)
                self.content = self._open_archive(file) if archived else self._open_legacy(file)
        except Malformed:
            raise
        # Of pickletools (ValueError), of zipfile, and of the machine below on an absurd program.
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError,
                NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # fmt: skip
            raise Malformed(f'damaged ({type(error).__name__})') from None

    def array(self, tensor: Tensor) -> np.ndarray:
        """The values of a tensor, as a contiguous copy.

        Raises:
          Malformed: it reaches beyond its storage.
        """
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, tensor.storage.dtype)
        pairs = zip(tensor.shape, tensor.strides, strict=True)
        last = tensor.offset + sum((n - 1) * step for n, step in pairs)
        stored = self._stored.get(tensor.storage.key)
        if stored is None or last >= stored.size:
            raise Malformed('damaged (a tensor without its numbers)')
        strides = [step * stored.itemsize for step in tensor.strides]
        view = np.lib.stride_tricks.as_strided(
            stored[tensor.offset :], tensor.shape, strides, writeable=False
        )
        return view.copy()

    def _open_archive(self, file: io.BufferedIOBase) -> Any:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            (pickled,) = [n for n in names if n.count('/') == 1 and n.endswith('/data.pkl')]
            folder = pickled.removesuffix('data.pkl')
            if folder + 'byteorder' in names:
                with archive.open(folder + 'byteorder') as order:
                    if order.read(10) != b'little':
                        raise Malformed('written on a big-endian machine, which is not supported')
            if archive.getinfo(pickled).file_size > MAX_PICKLE_BYTES:
                raise Malformed(f'its description takes more than {MAX_PICKLE_BYTES} bytes')
            content, storages = _run(io.BytesIO(archive.read(pickled)))
            for storage in storages.values():
                data = archive.read(f'{folder}data/{storage.key}')
                self._stored[storage.key] = _numbers(data, storage)
        return content

    def _open_legacy(self, file: io.BufferedIOBase) -> Any:
        if _run(file)[0] != _LEGACY_MAGIC:
            raise Malformed('of no format of PyTorch')
        _run(file)  # the version
        if _run(file)[0]['little_endian'] is not True:
            raise Malformed('written on a big-endian machine, which is not supported')
        content, storages = _run(file)
        for key in _run(file)[0]:
            count, storage = int.from_bytes(file.read(8), 'little'), storages[key]
            data = file.read(storage.size * np.dtype(storage.dtype).itemsize)
            if count != storage.size:
                raise Malformed('damaged (a storage of another size)')
            self._stored[key] = _numbers(data, storage)
        return content


def _numbers(data: bytes, storage: Storage) -> np.ndarray:
    return np.frombuffer(data, storage.dtype) if data else np.zeros(0, storage.dtype)


class _Limited:
    """What pickletools reads: no more than a description may have."""

    def __init__(self, file: io.BufferedIOBase):
        self._file, self._left = file, MAX_PICKLE_BYTES

    def read(self, size: int) -> bytes:
        most = self._left + 1
        return self._count(self._file.read(min(size, most)))

    def readline(self) -> bytes:
        return self._count(self._file.readline(self._left + 1))

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise Malformed(f'its description takes more than {MAX_PICKLE_BYTES} bytes')
        return data


_MARK = object()


def _run(file: io.BufferedIOBase) -> tuple[Any, dict[str, Storage]]:
    """Follows one pickle up to its end: what it stands for, and the storages that it names."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def above_mark() -> list[Any]:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Malformed('damaged (no mark)')
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def take(count: int) -> list[Any]:
        items = stack[-count:]
        if len(items) < count:
            raise Malformed('damaged (an empty stack)')
        del stack[-count:]
        return items

    def set_items(items: list[Any]) -> None:
        if isinstance(stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            stack[-1].update((k, v) for k, v in pairs if isinstance(k, str | int))

    operations: Any = pickletools.genops(_Limited(file))  # type: ignore[arg-type]
    for opcode, argument, _ in operations:
        name = opcode.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in _MAKE:
            stack.append(_MAKE[name]())
        elif name in ('PROTO', 'FRAME'):
            pass
        elif name == 'MARK':
            stack.append(_MARK)
        elif name == 'STOP':
            return stack.pop(), storages
        elif name == 'POP':
            stack.pop()
        elif name == 'POP_MARK':
            above_mark()
        elif name == 'DUP':
            stack.append(stack[-1])
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            stack.append(tuple(take(int(name[-1]))))
        elif name == 'TUPLE':
            stack.append(tuple(above_mark()))
        elif name == 'LIST':
            stack.append(above_mark())
        elif name == 'DICT':
            items = above_mark()
            stack.append({})
            set_items(items)
        elif name == 'SETITEM':
            set_items(take(2))
        elif name == 'SETITEMS':
            set_items(above_mark())
        elif name in ('APPEND', 'APPENDS'):
            items = take(1) if name == 'APPEND' else above_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name == 'ADDITEMS':
            above_mark()
        elif name == 'GLOBAL':
            stack.append(_Global(argument.replace(' ', '.')))
        elif name == 'STACK_GLOBAL':
            stack.append(_Global('.'.join(map(str, take(2)))))
        elif name == 'BINPERSID':
            found = _storage(stack.pop())
            stack.append(found)
            if isinstance(found, Storage) and storages.setdefault(found.key, found) != found:
                raise Malformed('damaged (one storage of two kinds)')
        elif name == 'REDUCE':
            function, arguments = take(2)
            stack.append(_call(function, arguments))
        elif name == 'BUILD':  # sets attributes, which nothing here has
            take(1)
        elif name in ('NEWOBJ', 'NEWOBJ_EX'):
            take(2 if name == 'NEWOBJ' else 3)
            stack.append(Foreign())
        elif name in ('OBJ', 'INST', 'FROZENSET'):
            above_mark()
            stack.append(Foreign())
        else:
            raise Malformed(f'its description uses {name}, which PyTorch does not write')
    raise Malformed('cut off')


_LITERALS = frozenset((
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8', 'UNICODE',
    'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'FLOAT', 'BINFLOAT',
))  # fmt: skip
_MAKE: dict[str, Callable[[], Any]] = {
    'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False, 'EMPTY_LIST': list,
    'EMPTY_TUPLE': tuple, 'EMPTY_DICT': dict, 'EMPTY_SET': Foreign,
}  # fmt: skip


def _storage(identity: Any) -> Storage | Foreign:
    """The storage that a persistent id ('storage', type, key, device, size ...) stands for."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != 'storage':
        return Foreign()
    kind, key, size = identity[1], identity[2], identity[4]
    if len(identity) > 5 and identity[5] is not None:  # a part of another storage: before 2017
        return Foreign()
    name = kind.name.removeprefix('torch.') if isinstance(kind, _Global) else ''
    dtype = _DTYPES.get(name.removesuffix('Storage'))
    if dtype is None or not isinstance(key, str) or type(size) is not int or size < 0:
        return Foreign()
    return Storage(dtype, key, size)


def _call(function: Any, arguments: Any) -> Any:
    """What a call gives: a tensor or a dictionary, by name; the function is not looked for."""
    name = function.name if isinstance(function, _Global) else ''
    if name == 'collections.OrderedDict':
        return {}
    if name in ('torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_tensor'):
        storage, offset, shape, strides = arguments[:4]
        numbers = (offset, *shape, *strides) if isinstance(storage, Storage) else (-1,)
        sane = len(shape) == len(strides) <= 8
        if sane and all(type(n) is int and 0 <= n < 1 << 40 for n in numbers):
            return Tensor(storage, offset, tuple(shape), tuple(strides))
    if name in ('torch._utils._rebuild_parameter', 'torch._utils._rebuild_parameter_with_state'):
        return arguments[0]
    return Foreign()
