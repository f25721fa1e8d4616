"""A network as a folder in Hugging Face's layout, which predicts without the run.

The weights are the state dict that `--format=torch` writes, not a second format: PyTorch and
`config.model.pretrained` read them too, and transposing loses no bit. Read as a run directory, the
folder has one checkpoint: these weights.
"""

import hashlib
import pathlib
import re
from typing import Any

import safetensors.numpy

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import model_card
from pneumojax.models import weight_files
from pneumojax.runs.checkpoints import Checkpoints, require_equal
from pneumojax.runs.run import PRETRAINED, Run
from pneumojax.runtimes import exported
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.system import limits

CONFIG, RULE, EVALUATION, CARD, SUMS = (
    'config.json', 'thresholds.json', 'evaluation.json', 'README.md', 'SHA256SUMS',
)  # fmt: skip
# What such a folder holds. The reference documentation is made from this.
FILES = {
    PRETRAINED: 'The weights that were evaluated: the state dict that `--format=torch` writes.',
    CONFIG: "The run's configuration, without its paths.",
    RULE: 'The rule that turns probabilities into masks, and which weights it was made for.',
    EVALUATION: 'The figures with their intervals.',
    CARD: 'The model card: the only file that you may change. Its licence is yours to fill in.',
    SUMS: 'SHA-256 of the others but the card, as `sha256sum -c` reads it. Files that were changed '
    'are refused.',
}
_SUMMED = (PRETRAINED, CONFIG, RULE, EVALUATION)
_PRIVATE = ('init_from', 'data.root', 'data.masks', 'data.table', 'data.patients', 'data.cache',
            'model.pretrained')  # fmt: skip


class _Weights(Checkpoints):
    """The weights of such a folder, as the only checkpoint of a run.

    Args:
      folder: that holds them; its files were checked.
      stated: content of its thresholds.json.
      digest: SHA-256 of the file of weights.
    """

    def __init__(self, folder: pathlib.Path, stated: dict[str, Any], digest: str):
        super().__init__(folder)
        self._stated, self._sha256 = stated, digest

    def steps(self) -> list[int]:
        """The step that they were evaluated at."""
        return [self._stated['step']]

    def has_any(self) -> bool:
        """There is one."""
        return True

    def has_average(self, step: int) -> bool:
        """Whether they are averaged."""
        del step
        return self._stated['weights'] == 'average'

    def statement(self, step: int) -> str:
        """What is unique to them."""
        del step
        return self._sha256

    def weights_digest(self, step: int, *, averaged: bool) -> str:
        """That of the run's own checkpoint, if its thresholds.json states it."""
        del step, averaged
        return self._stated.get('digest') or self._sha256

    def load_variables(
        self, step: int, shapes: dict[str, Any], *, averaged: bool
    ) -> dict[str, Any]:
        """Reads them; UsageError where they do not fit the network of config.json."""
        from pneumojax.models import pretrained  # late: exported networks need no JAX

        del step, averaged
        shape = pretrained.network_shape(shapes)
        path = self._run / PRETRAINED
        variables = pretrained.load_smp_unet(
            path, channels=shape.channels, width=shape.width, stage_sizes=shape.stage_sizes
        )
        require_equal(str(path), variables, shapes)
        return variables


def opened(run: Run) -> Run:
    """The run, or such a folder as a run whose checkpoint is its weights.

    Raises:
      UsageError: a file of the folder is missing, damaged or was changed.
    """
    if not any((run / name).is_file() for name in (PRETRAINED, SUMS)):
        return run
    sums = _check(run.path)
    folder = Run(run.path)
    folder.checkpoints = _Weights(folder.path, folder.read_json(RULE), sums[PRETRAINED])
    return folder


def contents(member: Member) -> dict[str, bytes]:
    """The files of an evaluated run's folder, the sums last.

    Args:
      member: the run, or such a folder, whose files are copied.

    Raises:
      UsageError: the run was not evaluated, or has no weights.
    """
    run = member.run
    assert run is not None  # exported networks are no runs
    if isinstance(run.checkpoints, _Weights):
        names = [name for name in FILES if (run / name).is_file()]
        return {name: (run / name).read_bytes() for name in names}
    evaluation = run.read_json(EVALUATION)
    if evaluation['step'] != member.identity['step']:
        raise UsageError(
            f'{run / EVALUATION} is of step {evaluation["step"]}, {RULE} of step '
            f'{member.identity["step"]}; run --mode=evaluate on the run again'
        )
    from pneumojax.models import pretrained  # late: exported networks need no JAX

    state_dict = pretrained.to_torch(member.variables())
    files = {
        PRETRAINED: safetensors.numpy.save(state_dict, metadata={'format': 'pt'}),
        CONFIG: config_lib.to_json(_without_paths(member.config)).encode(),
        RULE: (run / RULE).read_bytes(),
        EVALUATION: (run / EVALUATION).read_bytes(),
        CARD: model_card.make(run).encode(),
    }
    lines = [f'{hashlib.sha256(files[name]).hexdigest()}  {name}\n' for name in _SUMMED]
    return files | {SUMS: ''.join(lines).encode()}


def save(member: Member, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the folder of an evaluated run; existing files are not overwritten.

    Returns:
      The paths of its files.

    Raises:
      UsageError: as for `contents`; or a file exists already with other content, or cannot be
        written.
    """
    exported.refuse_complete(*(folder / name for name in FILES))
    files = {folder / name: content for name, content in contents(member).items()}
    exported.write(files)
    return list(files)


def _without_paths(config: Any) -> Any:
    """Paths are private, and mean nothing elsewhere; the card says what training started from."""
    public = config.copy_and_resolve_references()
    with public.unlocked():
        public.update_from_flattened_dict(dict.fromkeys(_PRIVATE, ''))
    return public


def _check(folder: pathlib.Path) -> dict[str, str]:
    """Compares every file with its SHA-256; returns name -> SHA-256."""
    stated = _read_sums(folder / SUMS)
    for name in _SUMMED:
        path = folder / name
        if name not in stated:
            raise UsageError(f'{folder / SUMS} does not name {name}; get the folder again')
        try:
            limits.check_file(path, limits.MAX_WEIGHT_BYTES)
            actual = weight_files.sha256(path)
        except limits.TooLarge as error:
            raise UsageError(f'{path}: {error}; get the folder again') from None
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read: {error.strerror}; a network in Hugging Face's layout is "
                f'complete with {", ".join(_SUMMED)} and {SUMS}: get the folder again'
            ) from None
        if actual != stated[name]:
            raise UsageError(
                f'{path} is damaged or was changed: its SHA-256 is not the one in {SUMS}; get the '
                'folder again, or export the run into another one'
            )
    return stated


def _read_sums(path: pathlib.Path) -> dict[str, str]:
    try:
        lines = limits.read_text(path).splitlines()
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}; get the folder again') from None
    except ValueError:
        lines = ['']
    matches = [re.fullmatch(r'([0-9a-f]{64}) [ *]([\w.]+)', line) for line in lines]
    if None in matches:
        raise UsageError(f'{path} is damaged: expected lines of SHA-256 and name; get it again')
    return {match[2]: match[1] for match in matches if match}
