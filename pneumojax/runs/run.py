"""A run directory: the one place that knows its layout.

`FILES` says what is in it. JAX and Orbax are imported where a checkpoint is touched: what needs
only the small files starts in a fraction of the time.
"""

import json
import os
import pathlib
import shutil
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from pneumojax import config as config_lib
from pneumojax.errors import UsageError, first_line
from pneumojax.runs import checkpoints, run_files
from pneumojax.runs.checkpoints import Damaged
from pneumojax.system import atomic, limits, locks, processes
from pneumojax.system.progress import log

if TYPE_CHECKING:
    from orbax.checkpoint import v1 as ocp

_STATEMENT = '_CHECKPOINT_METADATA'  # Orbax's file about a checkpoint as a whole
LOCK = '.lock'
VARIABLES = ('params', 'batch_stats')  # the items that make up a network

# What a run directory holds, and who writes it. The documentation's reference is made of this.
FILES = {
    'config.json': 'train: the resolved configuration; another one is refused here.',
    'split.json': 'train: ImageIds trained on and held out; they must stay the same.',
    'metrics.jsonl': 'train: loss, learning rate and validation Dice, one JSON object a line.',
    'tensorboard/': 'train: the same figures for TensorBoard.',
    'checkpoints/': 'train: Orbax, one folder per step, with `params`, `batch_stats`, `opt_state`; '
    'the last one of a run with averaging also has `average_params` and `average_batch_stats`.',
    'profile/': 'train with --profile: traces of steps, for XProf or Perfetto.',
    'damaged/': 'train: checkpoints that could not be read any more and were passed over.',
    LOCK: 'train: which process trains here, as long as it does.',
    'scores.npz': "evaluate: what is kept of each held-out image's probabilities.",
    'thresholds.json': 'evaluate: the rule that makes masks of probabilities, and what it was '
    'chosen on; predict reads it.',
    'evaluation.json': 'evaluate: mean Dice beside the all-empty one, Dice of positives, '
    'sensitivity, specificity, AUC, each with its 95 % interval.',
    'per_image.csv': 'evaluate: one row per held-out image: Dice, true and predicted pixels, '
    'probability.',
    'curves.png': 'evaluate: learning curves, thresholds, ROC, Dice by size.',
    'calibration.png': 'evaluate: pixel probabilities against the share of pixels in lesions.',
    'contact_sheet.png': 'evaluate: best, middle and worst positives, most suspicious negatives.',
    'model_card.md': 'evaluate: what the network is, was trained on, is worth, and its limits.',
    'report.html': 'evaluate: all of it on one page.',
    'exported/': 'predict: the network for OpenVINO and ONNX Runtime, made when first wanted.',
}


class Run:
    """One run directory.

    Args:
      path: the directory. Nothing is created until something is written.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    # --- configuration -------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether the directory holds a run (has a `config.json`)."""
        return (self / 'config.json').is_file()

    def config(self) -> ml_collections.ConfigDict:
        """The run's configuration. UsageError if the directory is not a run or the file is bad."""
        path = self / 'config.json'
        try:
            return config_lib.upgrade(config_lib.from_json(limits.read_text(path)))
        except FileNotFoundError:
            raise UsageError(
                f'{self.path} is not a run directory: it has no config.json; '
                'give --workdir=RUN of a trained run'
            ) from None
        except (ValueError, AttributeError, TypeError, RecursionError, OSError) as error:
            raise UsageError(
                f'{path} cannot be read as a configuration: {first_line(error)}'
            ) from None

    def start(self, config: ml_collections.ConfigDict) -> None:
        """Makes the directory this configuration's, or finds that it already is.

        Raises:
          UsageError: the directory belongs to another configuration, or holds something else.
        """
        if self.exists:
            changed = config_lib.differences(self.config(), config)
            if changed:
                raise UsageError(
                    f'{self.path} is the run of another config ({"; ".join(changed[:5])}'
                    f'{"; ..." if len(changed) > 5 else ""}); give another --workdir, '
                    'or the same values to continue it'
                )
            return
        if self.path.exists() and (not self.path.is_dir() or self._strangers(config)):
            raise UsageError(
                f'{self.path} is not empty and not a run directory (no config.json); '
                'give another --workdir'
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            atomic.write(self / 'config.json', config_lib.to_json(config))
        except OSError as error:
            raise UsageError(
                f'cannot write the run directory {self.path}: {error.strerror}'
            ) from None

    def lock(self) -> locks.LockFile:
        """A context in which no other process may train in this directory."""
        return locks.LockFile(self / LOCK)

    def _strangers(self, config) -> set[str]:
        """What the directory holds beside folds or stages that were trained there alone."""
        return {p.name for p in self.path.iterdir()} - set(config_lib.folders(config))

    # --- small files ---------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> None:
        """Writes one JSON file of the directory, atomically. NaN is refused: use None."""
        atomic.write(self / name, json.dumps(value, indent=2, allow_nan=False) + '\n')

    def write_text(self, name: str, text: str) -> None:
        """Writes one text file of the directory, atomically."""
        atomic.write(self / name, text)

    def read_json(self, name: str) -> Any:
        """Reads one JSON file of the directory; UsageError when it is missing or broken."""
        path = self / name
        try:
            value = json.loads(limits.read_text(path))
            run_files.check(name, value)
            return value
        except FileNotFoundError:
            mode = FILES.get(name, 'evaluate').split(':')[0]
            raise UsageError(f'{path} is missing; run --mode={mode} on this run first') from None
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f'{path} is damaged ({first_line(error)}); the run must write it again'
            ) from None
        except OSError as error:
            raise UsageError(f'{path} cannot be read: {error.strerror}') from None

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes one .npz file of the directory, atomically. Arrays hold numbers or text."""
        with atomic.replacing(self / name) as unfinished:
            np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]  # its own options

    def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Reads one .npz file of the directory; None when it cannot be read."""
        try:
            with np.load(self / name, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, up to one that is none: a crash cuts the last one off."""
        path = self / 'metrics.jsonl'
        rows = []
        for line in path.read_bytes().split(b'\n') if path.exists() else ():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not run_files.is_metrics_row(row):
                break
            rows.append(row)
        return rows

    def forget_metrics_after(self, step: int, *, validated: bool = True) -> None:
        """Drops lines past the step a run resumes from, which would otherwise stand twice.

        Args:
          step: the last one to keep.
          validated: whether to keep its look at the validation images too.
        """
        if (self / 'metrics.jsonl').exists():
            rows = [
                row for row in self.metrics()
                if row['step'] < step
                or (row['step'] == step and (validated or row['split'] == 'train'))
            ]  # fmt: skip
            atomic.write(self / 'metrics.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))

    # --- checkpoints ---------------------------------------------------------------------------

    def checkpointer(self, keep: int) -> 'ocp.training.Checkpointer':
        """Orbax's writer for this run (a context manager); it keeps the newest `keep` steps."""
        from orbax.checkpoint import v1 as ocp

        return ocp.training.Checkpointer(
            (self / 'checkpoints').absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        folder = self / 'checkpoints'
        return sorted(
            int(p.name)
            for p in (folder.iterdir() if folder.is_dir() else ())
            # Orbax itself takes an empty folder for a checkpoint; this file is in every whole one.
            if p.name.isdecimal() and (p / _STATEMENT).is_file()
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def about(self, step: int) -> dict[str, Any]:
        """What was written down beside the items of a checkpoint; see `checkpoints.Saver`.

        Of a training run: epoch (whole epochs done), num_epochs (planned), ended (False where the
        end of an epoch was interrupted: validation is still to do), sha256 (of each item).
        """
        return self._metadata(step).custom_metadata or {}

    def epochs_done(self, step: int) -> tuple[int, int] | None:
        """(epochs done, epochs planned) at a checkpoint; None for a converted network."""
        about = self.about(step)
        return (about['epoch'], about['num_epochs']) if 'num_epochs' in about else None

    def set_aside(self, step: int, folder: str) -> pathlib.Path:
        """Moves what stands in a checkpoint's place to a folder of the run; returns where to."""
        (self / folder).mkdir(exist_ok=True)
        count = sum(1 for p in (self / folder).iterdir() if p.name.split('-')[0] == str(step))
        target = self / folder / (f'{step}-{count}' if count else str(step))
        os.rename(self._step_path(step), target)
        return target

    def replace(self, step: int) -> None:
        """Clears a checkpoint's place for a better one of the same step; see `put_back`."""
        self.set_aside(step, 'replaced')

    def put_back(self) -> None:
        """Ends what `replace` began: the new one if it is there, else the old one again."""
        folder = self / 'replaced'
        for p in folder.iterdir() if folder.is_dir() else ():
            if int(p.name) not in self.steps():
                os.rename(p, self._step_path(int(p.name)))
        shutil.rmtree(folder, ignore_errors=True)

    def set_incomplete_aside(self) -> None:
        """Clears the places of checkpoints that lost the file which says that they are whole."""
        folder, whole = self / 'checkpoints', self.steps()
        for p in folder.iterdir() if folder.is_dir() else ():
            if p.name.isdecimal() and int(p.name) not in whole:
                target = self.set_aside(int(p.name), 'damaged')
                log.warning('checkpoint %s is not whole: moved to %s', p, target)

    def written(self, step: int) -> dict[str, int]:
        """Which checkpoint this is: its step, and when it was written, nanoseconds."""
        stated = json.loads((self._step_path(step) / _STATEMENT).read_text())
        return {'step': step, 'at': stated.get('commit_timestamp_nsecs') or 0}

    def items(self, step: int) -> set[str]:
        """Names of the items that the checkpoint of a step holds."""
        return set(self._stored(step))

    def has_average(self, step: int) -> bool:
        """Whether the checkpoint of a step holds averaged weights beside the last ones."""
        return 'average_params' in self.items(step)

    def load(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Loads named items of one checkpoint, strictly.

        Args:
          step: a step that `latest_step` gave.
          abstract: item name -> pytree of arrays or `jax.ShapeDtypeStruct`, the shapes expected.

        Returns:
          The items as pytrees of numpy arrays, structured as `abstract`.

        Raises:
          Damaged: files are missing, cut off or changed.
          UsageError: an item is missing, or its keys, shapes or dtypes differ; both are listed.
        """
        import jax
        from orbax.checkpoint import v1 as ocp

        path, stored = self._step_path(step), self._stored(step)
        digests = self.about(step).get('sha256', {})
        for name, tree in abstract.items():
            if name not in stored:
                kind = Damaged if name in digests else UsageError
                raise kind(f'checkpoint {path} has no {name!r}, only {sorted(stored)}')
            if stored[name] is None:  # Orbax logs why and goes on
                raise Damaged(f'checkpoint {path}, item {name!r}: files are missing or damaged')
            _compare(f'{path}, item {name!r}', stored[name], tree)
        wanted = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), abstract)
        try:
            with processes.reading_alone():
                items = ocp.load_checkpointables(path, wanted)
        except Exception as error:
            raise Damaged(f'checkpoint {path} cannot be loaded: {first_line(error)}') from None
        for name, tree in items.items():
            if name in digests and checkpoints.digest(tree) != digests[name]:
                raise Damaged(
                    f'checkpoint {path}, item {name!r}: files are damaged (its SHA-256 is not the '
                    'one written down)'
                )
        return items

    def load_variables(self, step: int, shapes, *, averaged: bool) -> dict[str, Any]:
        """Parameters and batch statistics of one checkpoint, the averaged ones or the last.

        Args:
          step: a step that `latest_step` gave.
          shapes: {'params', 'batch_stats'} of the network, to compare with.
          averaged: take `average_params` and `average_batch_stats`.
        """
        prefix = 'average_' if averaged else ''
        items = self.load(step, {prefix + name: shapes[name] for name in VARIABLES})
        return {name: items[prefix + name] for name in VARIABLES}

    def _stored(self, step: int) -> dict[str, Any]:
        return self._metadata(step).metadata

    def _metadata(self, step: int):
        from orbax.checkpoint import v1 as ocp

        path = self._step_path(step)
        try:
            json.loads((path / _STATEMENT).read_text())  # where it is broken Orbax does without
            with processes.reading_alone():
                return ocp.checkpointables_metadata(path)
        except Exception as error:  # Orbax raises whatever its storage layer raised
            raise Damaged(f'checkpoint {path} cannot be read: {first_line(error)}') from None

    def _step_path(self, step: int) -> pathlib.Path:
        return (self / 'checkpoints').absolute() / str(step)


def _leaves(tree) -> dict[str, tuple]:
    """Path -> (shape, dtype)."""
    return {
        name: (tuple(leaf.shape), np.dtype(leaf.dtype).name)
        for name, leaf in checkpoints.named_leaves(tree).items()
    }


def _compare(where: str, stored, wanted) -> None:
    have, want = _leaves(stored), _leaves(wanted)
    if have == want:
        return
    missing = sorted(want.keys() - have.keys())
    extra = sorted(have.keys() - want.keys())
    other = [f'{k} {have[k]} instead of {want[k]}' for k in sorted(have.keys() & want.keys())
             if have[k] != want[k]]  # fmt: skip
    raise UsageError(
        f'{where}: does not fit this model. '
        f'Keys only in the checkpoint: {_some(extra)}; only in the model: {_some(missing)}; '
        f'of another shape or dtype: {_some(other)}'
    )


def _some(names: list[str], limit: int = 12) -> str:
    if not names:
        return 'none'
    return ', '.join(names[:limit]) + (f', ... ({len(names)} in all)' if len(names) > limit else '')
