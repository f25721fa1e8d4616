"""Checkpoints: written in the background by Orbax, complete or passed over, checked when read.

Orbax notices files that are missing or cut off, but not flipped bits in the data of large arrays,
which would come back as other weights. So each checkpoint carries the SHA-256 of every item's
arrays, taken before they are written and compared after they are read.

JAX and Orbax are imported where an array is touched: what needs only the list of checkpoints starts
in a fraction of the time.
"""

import hashlib
import json
import os
import pathlib
import shutil
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumojax.errors import UsageError, first_line
from pneumojax.runs import failed_writes
from pneumojax.system import processes
from pneumojax.system.progress import log

if TYPE_CHECKING:
    from orbax.checkpoint import v1 as ocp

FOLDER = 'checkpoints'
DAMAGED = 'damaged'  # where checkpoints go that cannot be read
VARIABLES = ('params', 'batch_stats')  # the items that make up a network
_REPLACED = 'replaced'  # where a checkpoint waits while a better one of its step is written
_METADATA = '_CHECKPOINT_METADATA'  # Orbax's file about a checkpoint as a whole, in each whole one


class Damaged(UsageError):
    """A checkpoint whose files are missing, cut off or changed."""


class NotWritten(UsageError):
    """A checkpoint that could not be written; `cause` says why in a few words."""

    def __init__(self, message: str, cause: str):
        super().__init__(message)
        self.cause = cause


class Checkpoints:
    """The checkpoints of one run.

    Args:
      run: its directory. Nothing is created until something is written.
    """

    def __init__(self, run: pathlib.Path):
        self._run = run

    # --- which there are -----------------------------------------------------------------------

    def path(self, step: int) -> pathlib.Path:
        """The folder of one checkpoint."""
        return self._folder / str(step)

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        # Orbax itself takes an empty folder for a checkpoint, and a link to that of another step.
        return sorted(
            step for step in self._numbered()
            if (self.path(step) / _METADATA).is_file()
            and self.path(step).resolve().name == str(step)
        )  # fmt: skip

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def has_any(self) -> bool:
        """Whether there is a checkpoint, or one that lost a part of itself."""
        return bool(self._numbered())

    # --- one of them ---------------------------------------------------------------------------

    def details(self, step: int) -> dict[str, Any]:
        """What was written down beside the items of a checkpoint; see `Saver.save`.

        In a training run: epoch (complete epochs), num_epochs (planned), ended (False where the end
        of an epoch was interrupted, so that validation is still to do), sha256 (of each item).
        """
        return self._metadata(step).custom_metadata or {}

    def epochs_done(self, step: int) -> tuple[int, int] | None:
        """(complete epochs, planned epochs) at a checkpoint; None for a converted network."""
        details = self.details(step)
        return (details['epoch'], details['num_epochs']) if 'num_epochs' in details else None

    def items(self, step: int) -> set[str]:
        """Names of the items that a checkpoint holds."""
        return set(self._metadata(step).metadata)

    def has_average(self, step: int) -> bool:
        """Whether a checkpoint holds averaged weights beside the last ones."""
        return 'average_params' in self.items(step)

    def statement(self, step: int) -> str:
        """What Orbax wrote about a checkpoint as a whole, JSON; unique to it."""
        return (self.path(step) / _METADATA).read_text()

    def identity(self, step: int) -> dict[str, int]:
        """Which checkpoint this is: its step, and when it was written in nanoseconds."""
        written = json.loads(self.statement(step)).get('commit_timestamp_nsecs')
        return {'step': step, 'at': written or 0}

    def weights_digest(self, step: int, *, averaged: bool) -> str:
        """SHA-256 of what `load_variables` gives, which is not loaded for it.

        A converted checkpoint has no digests of its arrays: then of the statement, which is unique.

        Raises:
          Damaged: Orbax's file about the checkpoint cannot be read.
        """
        try:
            statement = self.statement(step)
            digests = (json.loads(statement).get('custom_metadata') or {}).get('sha256', {})
        except (OSError, ValueError, AttributeError) as error:
            raise Damaged(
                f'checkpoint {self.path(step)} cannot be read: {first_line(error)}'
            ) from None
        prefix = 'average_' if averaged else ''
        parts = [digests.get(prefix + name) for name in VARIABLES]
        text = statement if None in parts else json.dumps(parts)
        return hashlib.sha256(text.encode()).hexdigest()

    # --- reading and writing -------------------------------------------------------------------

    def load(self, step: int, shapes: dict[str, Any]) -> dict[str, Any]:
        """Loads named items of one checkpoint, strictly.

        Args:
          step: of a complete checkpoint.
          shapes: item name -> pytree of arrays or `jax.ShapeDtypeStruct`, as they are expected.

        Returns:
          The items as pytrees of numpy arrays, structured as `shapes`.

        Raises:
          Damaged: files are missing, cut off or changed.
          UsageError: an item is missing, or its keys, shapes or dtypes differ; both are listed.
        """
        import jax
        from orbax.checkpoint import v1 as ocp

        path, metadata = self.path(step), self._metadata(step)
        stored, digests = metadata.metadata, (metadata.custom_metadata or {}).get('sha256', {})
        for name, tree in shapes.items():
            if name not in stored:
                kind = Damaged if name in digests else UsageError
                raise kind(f'checkpoint {path} has no {name!r}, only {sorted(stored)}')
            if stored[name] is None:  # Orbax logs why and goes on
                raise Damaged(f'checkpoint {path}, item {name!r}: files are missing or damaged')
            require_equal(f'{path}, item {name!r}', stored[name], tree)
        empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
        try:
            with processes.reading_alone():
                items = ocp.load_checkpointables(path, empty)
        except Exception as error:
            raise Damaged(f'checkpoint {path} cannot be loaded: {first_line(error)}') from None
        for name, tree in items.items():
            if name in digests and digest(tree) != digests[name]:
                raise Damaged(
                    f'checkpoint {path}, item {name!r}: files are damaged (the SHA-256 of its '
                    'arrays is not the one written down)'
                )
        return items

    def load_variables(
        self, step: int, shapes: dict[str, Any], *, averaged: bool
    ) -> dict[str, Any]:
        """Parameters and batch statistics of one checkpoint, the averaged ones or the last.

        Args:
          step: of a complete checkpoint.
          shapes: {'params', 'batch_stats'} of the network, to compare with.
          averaged: take `average_params` and `average_batch_stats`.

        Raises:
          UsageError: as for `load`.
        """
        prefix = 'average_' if averaged else ''
        items = self.load(step, {prefix + name: shapes[name] for name in VARIABLES})
        return {name: items[prefix + name] for name in VARIABLES}

    def writer(self, keep: int) -> 'ocp.training.Checkpointer':
        """Orbax's own writer, a context that keeps the newest `keep` steps. It adds no digests."""
        from orbax.checkpoint import v1 as ocp

        return ocp.training.Checkpointer(
            self._folder,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    # --- moving them out of the way ------------------------------------------------------------

    def set_aside(self, step: int, folder: str = DAMAGED) -> pathlib.Path:
        """Moves what stands in the place of a checkpoint to a folder of the run.

        Returns:
          Where it is now. Nothing in that folder is overwritten.
        """
        target = self._run / folder
        target.mkdir(exist_ok=True)
        count = sum(1 for p in target.iterdir() if p.name.split('-')[0] == str(step))
        target /= f'{step}-{count}' if count else str(step)
        os.rename(self.path(step), target)
        return target

    def set_incomplete_aside(self) -> None:
        """Moves what is no checkpoint to `damaged/`: it lost the file that marks a complete one, or
        it is a link to another step.
        """
        complete = self.steps()
        for step in self._numbered():
            if step not in complete:
                log.warning(
                    '%s is no complete checkpoint: moved to %s',
                    self.path(step), self.set_aside(step),
                )  # fmt: skip

    def replace(self, step: int) -> None:
        """Clears the place of a checkpoint for a better one of the same step; see `put_back`."""
        self.set_aside(step, _REPLACED)

    def put_back(self) -> None:
        """Ends what `replace` began: the new checkpoint stays if it is complete, else the old."""
        folder = self._run / _REPLACED
        for p in folder.iterdir() if folder.is_dir() else ():
            if int(p.name) not in self.steps():
                os.rename(p, self.path(int(p.name)))
        shutil.rmtree(folder, ignore_errors=True)

    # --- helpers -------------------------------------------------------------------------------

    @property
    def _folder(self) -> pathlib.Path:
        return (self._run / FOLDER).absolute()

    def _numbered(self) -> list[int]:
        folder = self._folder
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal() and name == str(int(name))]

    def _metadata(self, step: int) -> 'ocp.CheckpointMetadata':
        from orbax.checkpoint import v1 as ocp

        path = self.path(step)
        try:
            json.loads(self.statement(step))  # Orbax would ignore a broken one
            with processes.reading_alone():
                return ocp.checkpointables_metadata(path)
        except Exception as error:  # Orbax raises whatever its storage layer raised
            raise Damaged(f'checkpoint {path} cannot be read: {first_line(error)}') from None


class Saver:
    """Writes checkpoints while training goes on. A context; its end waits for the last one.

    Args:
      checkpoints: of the run.
      keep: how many of the newest to keep.
    """

    def __init__(self, checkpoints: Checkpoints, keep: int):
        self.checkpoints, self.keep = checkpoints, keep
        self.step: int | None = None  # of the newest checkpoint given to `save`
        self._writing: Any = None  # Orbax's response to it

    def __enter__(self) -> 'Saver':
        failed_writes.silence()
        self._writer = self.checkpoints.writer(self.keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if processes.process_count() > 1 and isinstance(error, Exception):
            return  # the others may be gone: waiting for them would never end
        try:
            self._writer.close()
        except Exception as failure:
            if error is None:
                raise self._failed(failure) from failure
            log.warning('%s', self._failed(failure))

    def save(self, step: int, items: dict[str, Any], **details: Any) -> None:
        """Starts to write one checkpoint.

        Args:
          step: its number; no checkpoint of that number exists.
          items: name -> pytree of numpy arrays.
          details: what else to write down, JSON values; see `Checkpoints.details`.

        Raises:
          UsageError: this one, or the one before it, cannot be written.
        """
        details['sha256'] = {name: digest(tree) for name, tree in items.items()}
        try:
            self._writing = self._writer.save_checkpointables_async(
                step, items, force=True, custom_metadata=details
            )
        except Exception as error:
            raise self._failed(error) from error
        self.step = step

    def wait(self) -> None:
        """Waits until the newest checkpoint is on the disk. UsageError if it cannot be written."""
        try:
            if self._writing is not None:
                self._writing.result()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> UsageError:
        return NotWritten(
            f'a checkpoint in {self.checkpoints.path(0).parent} cannot be written '
            f'({failed_writes.cause(error)}); the newest complete one is step '
            f'{self.checkpoints.latest_step()}: fix the cause (is the disk full?), then rerun the '
            'same command to continue from there',
            failed_writes.cause(error),
        )


def digest(tree: Any) -> str:
    """SHA-256 over the keys, shapes, dtypes and bytes of a pytree of numpy arrays."""
    total = hashlib.sha256()
    for name, leaf in sorted(_named_leaves(tree).items()):
        array = np.asarray(leaf)
        total.update(f'{name} {array.shape} {array.dtype.name}\n'.encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Path -> leaf. Orbax stores tuples as lists and named tuples as dicts."""
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        '/'.join(
            str(getattr(k, 'key', getattr(k, 'idx', getattr(k, 'name', k)))) for k in path
        ): leaf
        for path, leaf in flat
    }


def require_equal(where: str, stored: Any, expected: Any) -> None:
    """UsageError where keys, shapes or dtypes of two pytrees differ; both are listed."""
    have, want = (
        {k: (tuple(x.shape), np.dtype(x.dtype).name) for k, x in _named_leaves(tree).items()}
        for tree in (stored, expected)
    )
    if have == want:
        return
    other = [f'{k} {have[k]} instead of {want[k]}' for k in sorted(have.keys() & want.keys())
             if have[k] != want[k]]  # fmt: skip
    raise UsageError(
        f'{where}: does not fit this model. '
        f'Keys only in the checkpoint: {_some(sorted(have.keys() - want.keys()))}; '
        f'only in the model: {_some(sorted(want.keys() - have.keys()))}; '
        f'of another shape or dtype: {_some(other)}'
    )


def _some(names: list[str], limit: int = 12) -> str:
    if not names:
        return 'none'
    return ', '.join(names[:limit]) + (f', ... ({len(names)} in all)' if len(names) > limit else '')
