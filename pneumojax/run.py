"""A run directory: the one place that knows its layout.

config.json       the resolved configuration        metrics.jsonl   one JSON object a line
checkpoints/N/    Orbax, by optimizer step; named items params, batch_stats, opt_state, ...
split.json        which images were trained on and which were held out
scores.npz        what evaluation keeps of each held-out image's probabilities
tensorboard/      the same metrics
thresholds.json, evaluation.json, per_image.csv, curves.png, contact_sheet.png   from evaluate
exported/         the network as it predicts without JAX, made when first wanted

JAX and Orbax are imported where a checkpoint is touched: what needs only the small files starts in
a fraction of the time.
"""

import json
import os
import pathlib
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from pneumojax import config as config_lib
from pneumojax.errors import UsageError

if TYPE_CHECKING:
    from orbax.checkpoint import v1 as ocp

VARIABLES = ('params', 'batch_stats')  # the items that make up a network

# What a run directory holds, and who writes it. The documentation's reference is made of this.
FILES = {
    'config.json': 'train: the resolved configuration; another one is refused here.',
    'split.json': 'train: ImageIds trained on and held out; they must stay the same.',
    'metrics.jsonl': 'train: loss, learning rate and validation Dice, one JSON object a line.',
    'tensorboard/': 'train: the same figures for TensorBoard.',
    'checkpoints/': 'train: Orbax, one folder per step, with `params`, `batch_stats`, `opt_state`; '
    'the last one of a run with averaging also has `average_params` and `average_batch_stats`.',
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


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file so that readers see the old or the new content, never a part."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(text)
    os.replace(temporary, path)


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
            return config_lib.from_json(path.read_text())
        except FileNotFoundError:
            raise UsageError(
                f'{self.path} is not a run directory: it has no config.json; '
                'give --workdir=RUN of a trained run'
            ) from None
        except (ValueError, AttributeError, OSError) as e:
            raise UsageError(f'{path} cannot be read as a configuration: {e}') from None

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
            write_text(self / 'config.json', config_lib.to_json(config))
        except OSError as e:
            raise UsageError(f'cannot write the run directory {self.path}: {e.strerror}') from None

    def _strangers(self, config) -> set[str]:
        """What the directory holds beside folds or stages that were trained there alone."""
        return {p.name for p in self.path.iterdir()} - set(config_lib.folders(config))

    # --- small files ---------------------------------------------------------------------------

    def write_json(self, name: str, value: Any) -> None:
        """Writes one JSON file of the directory, atomically. NaN is refused: use None."""
        write_text(self / name, json.dumps(value, indent=2, allow_nan=False) + '\n')

    def write_text(self, name: str, text: str) -> None:
        """Writes one text file of the directory, atomically."""
        write_text(self / name, text)

    def read_json(self, name: str) -> Any:
        """Reads one JSON file of the directory; UsageError when it is missing or broken."""
        path = self / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise UsageError(f'{path} is missing; run --mode=evaluate on this run first') from None
        except ValueError as e:
            raise UsageError(f'{path} is not JSON: {e}') from None

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes one .npz file of the directory, atomically. Arrays hold numbers or text."""
        temporary = self / f'.{os.getpid()}.{name}'  # np.savez would add .npz to another ending
        np.savez_compressed(temporary, **arrays)
        os.replace(temporary, self / name)

    def read_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Reads one .npz file of the directory; None when it is cannot be read."""
        try:
            with np.load(self / name, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a half-written last line (a crash) is left out."""
        path = self / 'metrics.jsonl'
        rows = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def forget_metrics_after(self, step: int) -> None:
        """Drops lines past the step a run resumes from, which would otherwise stand twice."""
        if (self / 'metrics.jsonl').exists():
            rows = [row for row in self.metrics() if row['step'] <= step]
            write_text(self / 'metrics.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))

    # --- checkpoints ---------------------------------------------------------------------------

    def checkpointer(self, keep: int) -> 'ocp.training.Checkpointer':
        """Orbax's writer for this run (a context manager); it keeps the newest `keep` steps."""
        from orbax.checkpoint import v1 as ocp

        return ocp.training.Checkpointer(
            (self / 'checkpoints').absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """Optimizer step of the newest complete checkpoint, or None."""
        folder = self / 'checkpoints'
        steps = [
            int(p.name)
            for p in (folder.iterdir() if folder.is_dir() else ())
            # Orbax itself takes an empty folder for a checkpoint; this file is in every whole one.
            if p.name.isdecimal() and (p / '_CHECKPOINT_METADATA').is_file()
        ]
        return max(steps, default=None)

    def epochs_done(self, step: int) -> tuple[int, int] | None:
        """(epochs done, epochs planned) at a checkpoint; None for a converted network."""
        from orbax.checkpoint import v1 as ocp

        written = ocp.checkpointables_metadata(self._step_path(step)).custom_metadata or {}
        return (written['epoch'], written['num_epochs']) if 'num_epochs' in written else None

    def written(self, step: int) -> dict[str, int]:
        """Which checkpoint this is: its step, and when it was written, nanoseconds."""
        stated = json.loads((self._step_path(step) / '_CHECKPOINT_METADATA').read_text())
        return {'step': step, 'at': stated.get('commit_timestamp_nsecs') or 0}

    def items(self, step: int) -> set[str]:
        """Names of the items that the checkpoint of a step holds."""
        return set(self._stored(step))

    def load(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Loads named items of one checkpoint, strictly.

        Args:
          step: a step that `latest_step` gave.
          abstract: item name -> pytree of arrays or `jax.ShapeDtypeStruct`, the shapes expected.

        Returns:
          The items as pytrees of numpy arrays, structured as `abstract`.

        Raises:
          UsageError: an item is missing, or its keys, shapes or dtypes differ; both are listed.
        """
        import jax
        from orbax.checkpoint import v1 as ocp

        path, stored = self._step_path(step), self._stored(step)
        for name, tree in abstract.items():
            if name not in stored:
                raise UsageError(f'checkpoint {path} has no {name!r}, only {sorted(stored)}')
            if stored[name] is None:  # Orbax logs why and goes on
                raise UsageError(
                    f'checkpoint {path}, item {name!r}: files are missing or damaged; delete '
                    'that folder to go on from the checkpoint before it'
                )
            _compare(f'{path}, item {name!r}', stored[name], tree)
        wanted = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), abstract)
        try:
            return ocp.load_checkpointables(path, wanted)
        except Exception as e:
            raise UsageError(f'checkpoint {path} cannot be loaded: {_first_line(e)}') from None

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
        from orbax.checkpoint import v1 as ocp

        path = self._step_path(step)
        try:
            return ocp.checkpointables_metadata(path).metadata
        except Exception as e:  # Orbax raises whatever its storage layer raised
            raise UsageError(f'checkpoint {path} cannot be read: {_first_line(e)}') from None

    def _step_path(self, step: int) -> pathlib.Path:
        return (self / 'checkpoints').absolute() / str(step)


def _leaves(tree) -> dict[str, tuple]:
    """Path -> (shape, dtype). Tuples are stored as lists and named tuples as dicts by Orbax."""
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        '/'.join(str(getattr(k, 'key', getattr(k, 'idx', getattr(k, 'name', k)))) for k in path): (
            tuple(leaf.shape),
            np.dtype(leaf.dtype).name,
        )
        for path, leaf in flat
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


def _first_line(e: Exception) -> str:
    return f'{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ""}'
