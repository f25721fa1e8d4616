"""A run directory: what is in it (`FILES`), its configuration and its small files.

Its checkpoints are in `checkpoints`; `run_files` checks what its JSON files hold.
"""

import contextlib
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np

from pneumojax import config as config_lib
from pneumojax.errors import UsageError, first_line
from pneumojax.runs import run_files
from pneumojax.runs.checkpoints import DAMAGED, FOLDER, Checkpoints
from pneumojax.system import atomic, limits, locks
from pneumojax.system.progress import log

LOCK = '.lock'
PRETRAINED = 'model.safetensors'  # is there in place of checkpoints, see `pretrained_folder`
# What a run directory holds, and who writes it. The reference documentation is made from this.
FILES = {
    'config.json': 'train: the resolved configuration; once there is a checkpoint, another one is '
    'refused here.',
    'split.json': 'train: ImageIds trained on and held out; they must stay the same.',
    'metrics.jsonl': 'train: loss, learning rate and validation Dice, one JSON object a line.',
    'tensorboard/': 'train: the same figures for TensorBoard, and overlays of a few held-out '
    'images (`evaluation.pictures`).',
    f'{FOLDER}/': 'train: Orbax, one folder per step, with `params`, `batch_stats`, `opt_state`; '
    'the last one of a run with averaging also has `average_params` and `average_batch_stats`.',
    'profile/': 'train with --profile: traces of steps, for XProf or Perfetto.',
    f'{DAMAGED}/': 'train: checkpoints that could no longer be read and were passed over.',
    LOCK: 'train: which process trains here, for as long as it does.',
    'scores.npz': "evaluate: what is kept of each held-out image's probabilities.",
    'levels.zip': 'evaluate: the probabilities of each held-out image in hundredths, for '
    'masks under rules that are chosen later.',
    'thresholds.json': 'evaluate: the rule that turns probabilities into masks, the calibration of '
    'image probabilities, and what both were chosen on; predict reads it.',
    'evaluation.json': 'evaluate: mean Dice beside the all-empty one, Dice of positives, '
    'sensitivity, specificity, AUC, each with its 95 % interval.',
    'per_image.csv': 'evaluate: one row per held-out image: Dice, true and predicted pixels, '
    'calibrated probability, score.',
    'per_lesion.csv': 'evaluate: one row per true lesion and false mark: area, found or not, IoU, '
    'confidence.',
    'curves.png': 'evaluate: learning curves, thresholds, ROC, Dice by size.',
    'froc.png': 'evaluate: share of lesions found against false marks an image.',
    'subgroups.png': 'evaluate: Dice and AUC of groups of images, where any is large enough.',
    'calibration.png': 'evaluate: pixel probabilities against the share of pixels in lesions.',
    'image_level.png': 'evaluate: calibration of image probabilities before and after, precision '
    'and recall, net benefit, predictive values.',
    'contact_sheet.png': 'evaluate: best, middle and worst positives, most suspicious negatives.',
    'model_card.md': 'evaluate: what the network is, its training data, its scores, its limits, '
    "under Hugging Face's head.",
    'reporting.md': 'evaluate: the items of CLAIM 2024 and TRIPOD+AI, filled as far as the run '
    'knows; what people have to add is marked.',
    'report.html': 'evaluate: all of it on one page.',
    'exported/': 'predict: the network for OpenVINO and ONNX Runtime, made when first needed.',
}
# What a training leaves that was ended before its first checkpoint.
_BEGINNING = {'config.json', 'split.json', 'metrics.jsonl', 'tensorboard', FOLDER, LOCK}


class Run:
    """One run directory.

    Args:
      path: of the directory. Nothing is created until something is written.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.checkpoints = Checkpoints(self.path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    # --- whose it is ---------------------------------------------------------------------------

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
        """Makes the directory this configuration's, or checks that it already is.

        Another configuration's directory is taken over where nothing would be lost: no training
        has got to a checkpoint there, or a finished one is to go on for more epochs.

        Raises:
          UsageError: the directory belongs to another configuration, or holds something else.
        """
        self.refuse_pretrained()
        if self.exists:
            changed = config_lib.differences(self.config(), config)
            if changed and self._is_untrained():
                self._take_over(config, self._is_untrained)
                log.info(
                    '%s was another config\'s and has no checkpoint: started again with %s',
                    self.path, '; '.join(changed[:5]) + '; ...' * (len(changed) > 5),
                )  # fmt: skip
            elif changed and self._can_go_on(config):
                self._take_over(config, lambda: self._can_go_on(config))
            elif changed:
                raise UsageError(
                    f'{self.path} is the run of another config ({"; ".join(changed[:5])}'
                    f'{"; ..." if len(changed) > 5 else ""}); give another --workdir, '
                    'or the same values to continue it (num_epochs of a finished run can be raised)'
                )
            return
        if self.path.exists() and (not self.path.is_dir() or self._others(config)):
            raise UsageError(
                f'{self.path} is not empty and not a run directory (no config.json); '
                'give another --workdir'
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_text('config.json', config_lib.to_json(config))
        except OSError as error:
            raise UsageError(
                f'cannot write the run directory {self.path}: {error.strerror}'
            ) from None

    def refuse_pretrained(self) -> None:
        """UsageError where the directory is a network in Hugging Face's layout, not a run."""
        if (self / PRETRAINED).is_file():
            raise UsageError(
                f"{self.path} is a network in Hugging Face's layout, which only predicts; to "
                f'train from its weights: --config.model.pretrained={self / PRETRAINED} and '
                'another --workdir'
            )

    def _is_untrained(self) -> bool:
        """Whether all that is here is the beginning of a training, in the runs below too."""
        below = self._runs_below()
        names = {p.name for p in self.path.iterdir()} - {run.path.name for run in below}
        return (
            names <= _BEGINNING
            and not self.checkpoints.has_any()
            and all(run._is_untrained() for run in below)
        )

    def _can_go_on(self, config: ml_collections.ConfigDict) -> bool:
        """Whether this is a finished run, and all that differs is that it ends after more epochs.

        Not with `sampling.positive_share`: its parts of the run would have begun at other epochs.
        """
        step, before = self.checkpoints.latest_step(), self.config()
        if step is None or config.sampling.positive_share:
            return False
        free = (*config_lib.FREE_KEYS, *config_lib.TRAIN_ON_KEYS)
        if before.num_epochs == config.num_epochs or config_lib.differences(before, config, free):
            return False
        details = self.checkpoints.details(step)
        planned = details.get('num_epochs', np.inf)
        return details.get('ended', True) and details.get('epoch') == planned < config.num_epochs

    def _take_over(self, config: ml_collections.ConfigDict, is_allowed: Callable[[], bool]) -> None:
        """Writes another configuration, while no other process trains here or in a run below."""
        with contextlib.ExitStack() as stack:
            for run in self._with_runs_below():
                stack.enter_context(run.lock())
            if not is_allowed():  # another process was there before the lock was ours
                raise UsageError(f'{self.path} has just been trained; run the same command again')
            if self.checkpoints.latest_step() is None:
                for path in (self / 'split.json', self / 'metrics.jsonl'):
                    path.unlink(missing_ok=True)
                for path in (self / 'tensorboard').glob('events*'):
                    path.unlink()
            self.write_text('config.json', config_lib.to_json(config))

    def _runs_below(self) -> list['Run']:
        return [Run(p) for p in self.path.iterdir() if (p / 'config.json').is_file()]

    def _with_runs_below(self) -> Iterator['Run']:
        yield self
        for run in self._runs_below():
            yield from run._with_runs_below()

    def require_config(self, config: ml_collections.ConfigDict) -> None:
        """Checks that the run, if there is one, was trained with this configuration.

        Raises:
          UsageError: the run's own configuration is damaged, or a key differs, other than
            `evaluation.*`, `tta.*` and those that say where or how fast.
        """
        if not self.exists:
            return
        trained = self.config()
        config_lib.check(trained)  # what is damaged differs too, but for another reason
        changed = config_lib.differences(trained, config, config_lib.FREE_AFTER_TRAINING)
        if changed:
            raise UsageError(
                f'--config: {self.path} was trained with other values (run -> given: '
                f'{"; ".join(changed[:5])}{"; ..." if len(changed) > 5 else ""}); leave out '
                "--config, or give the run's values: only evaluation.* and tta.* may differ"
            )

    def _others(self, config: ml_collections.ConfigDict) -> set[str]:
        """What the directory holds beside folds or stages that were trained there on their own."""
        return {p.name for p in self.path.iterdir()} - set(config_lib.folders(config))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """A context in which no other process may train in this directory.

        What killed processes left unfinished there is removed first.
        """
        with locks.LockFile(self / LOCK):
            atomic.sweep(self.path)
            yield

    # --- small files ---------------------------------------------------------------------------

    def write_text(self, name: str, text: str) -> None:
        """Writes one text file of the directory, atomically."""
        atomic.write(self / name, text)

    def write_json(self, name: str, value: Any) -> None:
        """Writes one JSON file of the directory, atomically. NaN is refused: use None."""
        self.write_text(name, json.dumps(value, indent=2, allow_nan=False) + '\n')

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
        """The rows of metrics.jsonl, up to the first broken line: a crash cuts the last one off."""
        path = self / 'metrics.jsonl'
        rows: list[dict[str, Any]] = []
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
        """Drops rows past the step that a run resumes from: they would be written a second time.

        Args:
          step: the last one to keep.
          validated: whether to keep its validation row too.
        """
        if (self / 'metrics.jsonl').exists():
            rows = [
                row for row in self.metrics()
                if row['step'] < step
                or (row['step'] == step and (validated or row['split'] == 'train'))
            ]  # fmt: skip
            self.write_text('metrics.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
