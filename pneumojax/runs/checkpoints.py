"""Checkpoints that are whole: written in the background, and with digests of what was written.

Orbax notices files that are missing or cut off, but of flipped bits in the data of large arrays it
knows nothing: they would come back as other weights. So each checkpoint carries the SHA-256 of
every item's arrays, taken before they were written and compared after they were read.
"""

import hashlib
from typing import Any

import numpy as np

from pneumojax.errors import UsageError
from pneumojax.system import processes
from pneumojax.system.progress import log


class Damaged(UsageError):
    """A checkpoint whose files are missing, cut off or changed."""


class Saver:
    """Writes checkpoints of a run while training goes on. A context; its end waits for the last.

    Args:
      run: a `pneumojax.runs.run.Run`.
      keep: newest checkpoints that stay.
    """

    def __init__(self, run, keep: int):
        self.run, self.keep = run, keep
        self.step: int | None = None  # of the newest checkpoint given to `save`

    def __enter__(self):
        self._checkpointer = self.run.checkpointer(self.keep)
        self._writing = None
        return self

    def __exit__(self, kind, error, trace):
        if processes.process_count() > 1 and isinstance(error, Exception):
            return  # the others may be gone: to wait for them would be for ever
        try:
            self._checkpointer.close()
        except Exception as error:
            if error is None:
                raise self._failed(error) from error
            log.warning('%s', self._failed(error))

    def save(self, step: int, items: dict[str, Any], **about: Any) -> None:
        """Starts to write one checkpoint.

        Args:
          step: its number; no checkpoint of that number may be there.
          items: name -> pytree of numpy arrays.
          about: what else to know of it, JSON values; see `Run.about`.

        Raises:
          UsageError: this one, or the one before it, cannot be written.
        """
        about['sha256'] = {name: digest(tree) for name, tree in items.items()}
        try:
            self._writing = self._checkpointer.save_checkpointables_async(
                step, items, force=True, custom_metadata=about
            )
        except Exception as error:
            raise self._failed(error) from error
        self.step = step

    def wait(self) -> None:
        """Until the newest checkpoint is on the disk. UsageError if it cannot be."""
        try:
            if self._writing is not None:
                self._writing.result()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, e: Exception) -> UsageError:
        text = ' '.join(str(e).split())[-300:]  # the cause stands last
        return UsageError(
            f'a checkpoint of {self.run.path} cannot be written ({type(e).__name__}: '
            f'{text}); the newest whole one is step {self.run.latest_step()}: mend the cause '
            '(is the disk full?) and the same command continues from there'
        )


def digest(tree: Any) -> str:
    """SHA-256 over the keys, shapes, dtypes and bytes of a pytree of numpy arrays."""
    total = hashlib.sha256()
    for name, leaf in sorted(named_leaves(tree).items()):
        array = np.asarray(leaf)
        total.update(f'{name} {array.shape} {array.dtype.name}\n'.encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path -> leaf. Tuples are stored as lists and named tuples as dicts by Orbax."""
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        '/'.join(
            str(getattr(k, 'key', getattr(k, 'idx', getattr(k, 'name', k)))) for k in path
        ): leaf
        for path, leaf in flat
    }
