"""convert and export: what comes out must hold the numbers that went in, or nothing comes out."""

import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy

from pneumojax.errors import UsageError
from pneumojax.models import convert, pretrained
from pneumojax.models.unet import UNet
from pneumojax.runs import checkpoints
from pneumojax.runs.run import Run
from pneumojax.runtimes import ensemble_member, exported
from pneumojax.runtimes.export import export
from tests.fuzz import mutate
from tests.fuzz.worker import Wrong, refused
from tests.models import made_up

_SIZE = 4, (1, 1, 1, 1)  # width and stages: as small as it goes
_PREFIXES = ('', 'module.', 'model.', '_orig_mod.', 'model.module.', 'module._orig_mod.', 'net.')


class Convert:
    """A U-Net's .safetensors file: names, shapes, types and data changed."""

    def __init__(self, folder: pathlib.Path):
        self.source, self.output = folder / 'weights.safetensors', folder / 'converted'
        smp_unet = pretrained._smp_unet
        pretrained._smp_unet = lambda tensors, path, *_: smp_unet(tensors, path, *_SIZE)
        network = UNet(width=_SIZE[0], stage_sizes=_SIZE[1])
        self.tensors = pretrained.to_torch(made_up.variables(network))

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """Mostly a valid file."""
        tensors = dict(self.tensors)
        names = list(tensors)
        prefix = str(rng.choice(_PREFIXES))
        for _ in range(int(rng.choice([0, 0, 1, 1, 2]))):
            name = names[int(rng.integers(len(names)))]
            tensor = tensors.pop(name, None)
            if tensor is None:
                continue
            match rng.integers(7):
                case 0:
                    pass  # it is gone
                case 1:
                    tensors[f'{name}x'] = tensor
                case 2:
                    tensors[name] = tensor.astype(str(rng.choice(['f2', 'f8', 'i4', '?'])))
                case 3:
                    tensors[name] = tensor.T.copy() if tensor.ndim else tensor[None]
                case 4:
                    tensors[name] = np.full_like(tensor, rng.choice([0, 1e38, np.inf, np.nan, -1])
                                                 if tensor.dtype.kind == 'f' else 7)  # fmt: skip
                case 5:
                    tensors[name] = tensor
                    tensors['epoch'] = np.array(3)
                case _:
                    tensors[name] = rng.normal(size=tensor.shape).astype(np.float32)
        content = safetensors.numpy.save({prefix + name: t for name, t in tensors.items()})
        return {'weights': mutate.data(rng, content) if rng.integers(4) == 0 else content}

    def check(self, case: dict[str, bytes]) -> str:
        """Convert, load, and write PyTorch's names again."""
        self.source.write_bytes(case['weights'])
        shutil.rmtree(self.output, ignore_errors=True)
        try:
            convert.convert(str(self.source), self.output)
        except UsageError as error:
            if self.output.exists() or any(p.name != self.source.name and p.is_dir()
                                           for p in self.source.parent.iterdir()):  # fmt: skip
                raise Wrong('refused, and something was written') from error
            return refused(error)
        given = safetensors.numpy.load(case['weights'])
        _compare(self._converted(), given)
        return 'number for number'

    def _converted(self):
        return pretrained.to_torch(pretrained.load(self.output).variables)


class Export:
    """A run with a damaged config, thresholds or checkpoint, and the description of an export."""

    def __init__(self, folder: pathlib.Path):
        from tests.tiny_runs import write_run

        self.whole, self.copy, self.output = (folder / name for name in ('whole', 'copy', 'out'))
        self.run = write_run(self.whole, rule=(0.6, 300, 0.55))
        variables = ensemble_member.of_run(self.run).variables()
        shutil.rmtree(self.whole / 'checkpoints')
        with checkpoints.Saver(self.run.checkpoints, keep=1) as saver:  # with digests
            saver.save(7, variables)
        export(self.run.config(), self.run, str(folder / 'good'))
        self.expected = safetensors.numpy.load_file(folder / 'good' / 'unet.safetensors')
        member = ensemble_member.to_export(self.run, self.run.config())
        self.description = {
            'identity': {k: v for k, v in member.identity.items() if k != 'run'},
            'shape': ['batch', 32, 32], 'image_size': 32, 'batch_size': 4, 'evaluation': None,
            'rule': {'top': 0.6, 'area': 300, 'bottom': 0.55, 'reference_pixels': 1 << 20,
                     'region': 0},
            'sha256': exported.hashlib.sha256(b'network').hexdigest(), 'version': exported.VERSION,
        }  # fmt: skip
        self.files = {
            str(path.relative_to(self.whole)): path.read_bytes()
            for path in sorted(self.whole.rglob('*'))
            if path.is_file()
        }

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One file damaged."""
        if rng.integers(3) == 0:
            return {exported.DESCRIPTION: mutate.json_bytes(rng, self.description)}
        names = sorted(self.files)
        name = 'config.json' if rng.integers(3) == 0 else names[int(rng.integers(len(names)))]
        content = self.files[name]
        if name.endswith('.json') and rng.integers(2):
            return {name: mutate.json_bytes(rng, json.loads(content))}
        return {name: mutate.data(rng, content)}

    def check(self, case: dict[str, bytes]) -> str:
        """Export the state dict; the weights must be those of the run."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.rmtree(self.output, ignore_errors=True)
        ((name, content),) = case.items()
        if name == exported.DESCRIPTION:
            return self._described(content)
        shutil.copytree(self.whole, self.copy)
        (self.copy / name).write_bytes(content)
        run = Run(self.copy)
        try:
            export(run.config(), run, str(self.output))
        except UsageError as error:
            if self.output.exists():
                raise Wrong('refused, and something was written') from error
            return refused(error)
        found = safetensors.numpy.load_file(self.output / 'unet.safetensors')
        if found.keys() != self.expected.keys() or any(
            found[key].tobytes() != value.tobytes() for key, value in self.expected.items()
        ):
            raise Wrong('other weights than those of the run')
        return 'the weights of the run'

    def _described(self, content: bytes) -> str:
        self.output.mkdir()
        (self.output / exported.MODEL).write_bytes(b'network')
        (self.output / exported.DESCRIPTION).write_bytes(content)
        try:
            member = ensemble_member.of_export(self.output)
        except UsageError as error:
            return refused(error)
        if member.rule is None or min(member.image_size, member.batch_size) < 1:
            raise Wrong(f'a member that cannot predict: {member}')
        f'{member.identity["name"]}@{member.identity["step"]:d}'  # as SEG files name it
        return 'a usable description'


def _compare(found, given) -> None:
    """Every tensor that was given is found, under its name without a prefix."""
    for name, tensor in given.items():
        ours = next((key for key in found if name.endswith(key)), None)
        if ours is None or name.endswith('num_batches_tracked'):
            if ours is None and not name.endswith('num_batches_tracked'):
                raise Wrong(f'{name} was lost')
            continue
        best = max((key for key in found if name.endswith(key)), key=len)
        if not np.array_equal(found[best], tensor.astype(np.float32)):
            raise Wrong(f'{name} has other numbers')


MAKE = {'convert': Convert, 'export': Export}
