"""Files of weights: nothing in them may run, and what is read must be what they say."""

import io
import json
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import safetensors.numpy

from pneumojax.errors import UsageError
from pneumojax.models import pretrained, weight_files
from tests.fuzz import mutate
from tests.fuzz.worker import Wrong, refused

_TYPES = {
    'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': 'i1',
    'U8': 'u1', 'U16': '<u2', 'U32': '<u4', 'U64': '<u8', 'BOOL': '?',
}  # fmt: skip


class Safetensors:
    """.safetensors with a damaged header or damaged data."""

    def __init__(self, folder: pathlib.Path):
        self.path = folder / 'weights.safetensors'
        rng = np.random.default_rng(0)
        tensors = {
            'conv1.weight': rng.normal(size=(4, 3, 7, 7)).astype(np.float32),
            'bn1.running_var': np.ones(4, np.float16),
            'bn1.num_batches_tracked': np.array(3),
        }
        self.seed = safetensors.numpy.save(tensors)
        size = int.from_bytes(self.seed[:8], 'little')
        self.header = json.loads(self.seed[8 : 8 + size])
        self.body = self.seed[8 + size :]

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """The file with another header, or damaged anywhere."""
        if rng.integers(2):
            return {'weights.safetensors': mutate.data(rng, self.seed)}
        header = mutate.json_bytes(rng, self.header)
        size = len(header) if rng.integers(8) else int(rng.integers(1 << 62))
        return {'weights.safetensors': struct.pack('<Q', size) + header + self.body}

    def check(self, case: dict[str, bytes]) -> str:
        """Read it; compare with the format's definition."""
        content = case['weights.safetensors']
        self.path.write_bytes(content)
        try:
            pretrained.load(self.path)
            raise Wrong('taken for a network')
        except UsageError as error:
            refused(error)
        try:
            tensors = weight_files.read_tensors(self.path)
        except UsageError as error:
            return refused(error)
        size = int.from_bytes(content[:8], 'little')
        header = json.loads(content[8 : 8 + size])
        header.pop('__metadata__', None)
        strip = len(header.keys() & tensors.keys()) != len(header)
        for name, tensor in zip(sorted(header), sorted(tensors), strict=True):
            about = header[name]
            kind = _TYPES.get(about['dtype'])
            if kind is None or strip:
                continue
            start, end = about['data_offsets']
            data = np.frombuffer(content[8 + size + start : 8 + size + end], kind)
            expected = data.reshape(about['shape'])
            expected = expected if expected.dtype.kind in 'iub' else expected.astype(np.float32)
            if not np.array_equal(tensors[tensor], expected):
                raise Wrong(f'{name!r} is read otherwise')
        return 'tensors as the header says'


class _Code:
    """Pickled as a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


class Pickled:
    """.pth: archives and bare pickles, some of which would run code."""

    def __init__(self, folder: pathlib.Path):
        import torch

        self.torch = torch
        self.path, self.trap = folder / 'weights.pth', folder / 'trap'
        torch.manual_seed(0)
        plain = {'conv1.weight': torch.randn(4, 3, 7, 7), 'n': torch.tensor(3)}
        one = torch.zeros(1)
        objects = [
            plain, {'state_dict': plain}, {'w': torch.nn.Parameter(torch.ones(3))},
            {'w': torch.ones(3).to_sparse()}, {'w': torch.ones(3, dtype=torch.complex64)},
            {'w': one.expand(1 << 20, 1 << 20)}, {'w': torch.ones(4, dtype=torch.bfloat16)},
            {'w': torch.empty(1 << 40, device='meta')}, {3: one}, [one], one, {}, {'w': [1]},
            {'w': torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
            {'state_dict': {'w': one, 'x': _Code(self.trap)}},
            # As Lightning and torch.compile write them.
            {'state_dict': {f'model.module.{k}': v for k, v in plain.items()}, 'epoch': 3,
             'global_step': 9, 'pytorch-lightning_version': '2.6', 'loops': {}, 'callbacks': {},
             'optimizer_states': [{'state': {0: {'step': one}}}], 'hyper_parameters': {'lr': 0.1}},
            {f'_orig_mod.{k}': v for k, v in plain.items()},
            {'state_dict': plain, 'hyper_parameters': _Code(self.trap)},
            {'module._orig_mod.a': one, 'b': one}, {'module.a': one, 'a': torch.ones(1)},
        ]  # fmt: skip
        self.seeds = [self._saved(value, new) for value in objects for new in (True, False)]
        self.seeds += [
            pickle.dumps(_Code(self.trap)),
            pickle.dumps({'w': _Code(self.trap)}, protocol=2),
            b'cos\nsystem\n(S"touch ' + str(self.trap).encode() + b'"\ntR.',
            self._bomb(),
        ]

    def _saved(self, value, new):
        buffer = io.BytesIO()
        self.torch.save(value, buffer, _use_new_zipfile_serialization=new)
        return buffer.getvalue()

    def _bomb(self):
        """An archive whose data is 2 GiB of deflated zeros."""
        source = zipfile.ZipFile(io.BytesIO(self.seeds[0]))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in source.namelist():
                if name.endswith('data/0'):
                    with archive.open(name, 'w', force_zip64=True) as file:
                        for _ in range(128):
                            file.write(bytes(1 << 24))
                else:
                    archive.writestr(name, source.read(name))
        return buffer.getvalue()

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """A file, damaged or, a fifth of the time, as it is."""
        seed = self.seeds[int(rng.integers(len(self.seeds)))]
        name = 'weights.ckpt' if rng.integers(4) == 0 else 'weights.pth'
        others = [other for other in self.seeds if len(other) < 10_000]
        if rng.integers(5) == 0 or len(seed) > 100_000:
            return {name: seed}
        return {name: mutate.data(rng, seed, others)}

    def check(self, case: dict[str, bytes]) -> str:
        """Read it; nothing must have run."""
        ((file, content),) = case.items()
        path = self.path.with_name(file)
        path.write_bytes(content)
        self.trap.unlink(missing_ok=True)
        try:
            tensors = weight_files.read_tensors(path)
        except UsageError as error:
            if self.trap.exists():
                raise Wrong('code ran') from error
            return refused(error)
        if self.trap.exists():
            raise Wrong('code ran')
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, np.ndarray):
                raise Wrong(f'{name!r} is no array')
            if tensor.dtype.kind == 'f' and not np.isfinite(tensor).all():
                raise Wrong(f'{name!r} is not finite')
        return 'tensors'


MAKE = {'safetensors': Safetensors, 'pickled': Pickled}
