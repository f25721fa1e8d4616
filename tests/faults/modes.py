"""What the drivers of this folder break: every mode of the program, on drawn images, in seconds.

A mode has a command, what must be there before it, and results. Everything lies below one folder
under names that stay the same, so that the same command makes the same bytes again.
"""

import dataclasses
import json
import pathlib
import re
import shutil
import time

import jax
import numpy as np
import pydicom
import safetensors.numpy
from orbax.checkpoint import v1 as ocp

from pneumojax.models import pretrained
from pneumojax.models.unet import UNet
from pneumojax.runs.checkpoints import Checkpoints
from tests.faults.zygote import REPOSITORY, Child, Zygote
from tests.models import made_up

IMAGES, HELD = 40, 'config.data.phantoms.num_images'
_DATA = (
    f'--config={REPOSITORY}/tests/faults/tiny.py', '--config.data.root=images',
    '--config.data.cache=cache',
)  # fmt: skip
_SMALL = (
    *_DATA, f'--{HELD}={IMAGES}', '--config.data.num_folds=2',
    '--config.averaging.start=0', '--config.stages.stage1.num_epochs=1',
    '--config.stages.stage2.num_epochs=2', '--config.stages.stage1.averaging.start=0',
)  # fmt: skip
_GROWING = ('tensorboard', 'metrics.jsonl', 'results.csv', '.journal.jsonl', '.lock')


@dataclasses.dataclass(frozen=True)
class Mode:
    """One command.

    Attributes:
      arguments: of the program, with paths relative to the folder it runs in.
      needs: what is copied from the finished small run before: names in the folder.
      makes: what it writes, names in the folder.
      once: whether it refuses to write what is there already.
      kills: how many a trial may take before it must end.
    """

    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ('run',)
    once: bool = False
    kills: int = 6


def _export(kind: str) -> Mode:
    arguments = '--mode=export', '--workdir=run', '--output=out', f'--format={kind}'
    return Mode(arguments, ('run',), ('out',), once=True)


MODES = {
    'train': Mode((*_DATA, '--workdir=run'), makes=('run', 'images'), kills=8),
    'prepare': Mode((*_SMALL, '--mode=prepare'), ('images',), ('cache',)),
    'evaluate': Mode(('--mode=evaluate', '--workdir=run'), ('images', 'cache', 'run')),
    'predict': Mode(
        ('--mode=predict', '--workdir=run', '--input=input', '--output=out', '--heatmap'),
        ('run', 'input'), ('out', 'run'),
    ),
    'folds': Mode(
        (*_SMALL, '--fold=all', '--workdir=folds'), ('images', 'cache'), ('folds',)
    ),
    'ablate': Mode(
        (*_SMALL, '--mode=ablate', '--workdir=ablation', '--config.evaluation.ablation_seeds=1'),
        ('images', 'cache'), ('ablation',),
    ),
    'export': _export('torch'),
    'export-onnx': _export('onnx'),
    'export-stablehlo': _export('stablehlo'),
    'convert': Mode(
        ('--mode=convert', '--input=weights.safetensors', '--output=out/converted'),
        ('weights.safetensors',), ('out',), once=True,
    ),
}  # fmt: skip


class Place:
    """A folder in which modes run, again and again.

    Args:
      root: of everything; `finished` in it holds what modes need.
    """

    def __init__(self, root: pathlib.Path):
        self.root, self.folder, self.finished = root, root / 'work', root / 'finished'
        self.log = root / 'log.txt'
        paths = {'PYTHONPATH': str(REPOSITORY), 'PNEUMOJAX_CACHE': str(root / 'kept')}
        self._zygote = Zygote(paths)

    def make_needs(self) -> None:
        """A small run, trained and evaluated; a whole U-Net's weights; images in two encodings."""
        if self.finished.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.run((*_SMALL, '--workdir=run'))
        weights = pretrained.to_torch(made_up.variables(UNet()))
        safetensors.numpy.save_file(weights, self.folder / 'weights.safetensors')
        (self.folder / 'input').mkdir()
        for number, path in enumerate(sorted((self.folder / 'images').rglob('*.dcm'))[:12]):
            image = pydicom.dcmread(path)
            if number % 2:  # decoded in a process of its own
                if image.file_meta.TransferSyntaxUID.is_compressed:
                    image.decompress(generate_instance_uid=False)
                image.compress(pydicom.uid.JPEGLSLossless, generate_instance_uid=False)
            image.save_as(self.folder / 'input' / path.name)
        self.folder.rename(self.finished)

    def begin(self, mode: Mode) -> None:
        """Only what a mode needs is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.copy_needs(mode)

    def copy_needs(self, mode: Mode) -> None:
        """Puts into the folder what a mode needs."""
        for name in mode.needs:
            source = self.finished / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, self.folder / name)

    def start(self, arguments, **variables) -> Child:
        """The program, in a session of its own."""
        return self._zygote.start(
            arguments=list(arguments), variables=variables, folder=str(self.folder),
            log=str(self.log),
        )  # fmt: skip

    def run(self, arguments, timeout=1200.0, **variables) -> float:
        """Runs to the end and returns the seconds. RuntimeError with the log if it fails."""
        began = time.monotonic()
        status = self.start(arguments, **variables).wait(timeout)
        if status:
            raise RuntimeError(f'status {status}: {self.last_lines()}')
        return time.monotonic() - began

    def last_lines(self) -> str:
        """The end of what the program said."""
        return self.log.read_text(errors='replace')[-3000:]

    def files(self, mode: Mode) -> set[str]:
        """All files and empty folders that a mode made, but inside of checkpoints."""
        found = set()
        for top in mode.makes:
            for path in (self.folder / top).rglob('*'):
                name = path.relative_to(self.folder)
                parts = name.parts
                if 'tensorboard' in parts or 'exported' in parts[:-1]:
                    continue
                if 'checkpoints' in parts:
                    name = pathlib.Path(*parts[: parts.index('checkpoints') + 2])
                    found.add(str(name))
                elif path.is_file() or not any(path.iterdir()):
                    found.add(str(name))
        return found

    def results(self, mode: Mode, *, growing: bool = True) -> dict[str, object]:
        """File (or item of a checkpoint) -> its content, without times.

        Args:
          mode: whose files to read.
          growing: also those to which the program appends while it works.
        """
        found: dict[str, object] = {}
        for name in sorted(self.files(mode)):
            path = self.folder / name
            if not growing and (path.name in _GROWING or _is_hidden(name)):
                continue
            if path.parent.name == 'checkpoints':
                if path.name.isdecimal() and growing:
                    found |= _checkpoint(path, name)
            elif path.is_file() and path.name != '.journal.jsonl':
                found[name] = _content(path)
        return found


def is_unfinished(name: str) -> bool:
    """Whether a file, or a folder it is in, was never renamed to its final name."""
    return any(re.match(r'\.[0-9a-f]{8}\.', part) for part in pathlib.Path(name).parts)


def _is_hidden(name: str) -> bool:
    return any(part.startswith('.') for part in pathlib.Path(name).parts)


def _checkpoint(path: pathlib.Path, name: str) -> dict[str, object]:
    items = ocp.load_checkpointables(path)
    details = dict(Checkpoints(path.parents[1]).details(int(path.name)))
    return {f'{name} details': details} | {
        f'{name} {item}{jax.tree_util.keystr(key)}': np.asarray(leaf).tobytes()
        for item, tree in items.items()
        for key, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _content(path: pathlib.Path) -> object:
    if path.suffix == '.dcm' and 'seg' in path.parts:  # it holds when it was made
        made = pydicom.dcmread(path)
        return made.SOPInstanceUID, made.PixelData
    return _without_times(path, path.read_bytes())


def _without_times(path: pathlib.Path, content: bytes) -> object:
    if path.suffix == '.npz':
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name].tobytes() for name in arrays if name != 'about'}
    if path.name == 'metrics.jsonl':
        rows = [json.loads(line) for line in content.splitlines()]
        return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]
    if path.name == 'ablation.md':
        return re.sub(r'\d+ s\b', '', content.decode())
    if path.name == 'ablation.json':
        report = json.loads(content)
        for cost in report['training'].values():
            cost.pop('seconds')
        return report
    return content
