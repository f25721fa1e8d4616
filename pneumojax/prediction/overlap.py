"""What networks learned from, so that they are not evaluated on it."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence

from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.runtimes.ensemble_member import Member

_PLACE = ('root', 'masks', 'table', 'patients')


class Learned:
    """The images that networks were trained on, and those that their rules were chosen on.

    A run records their ImageIds (split.json). Files and patients are known only as long as its data
    set is where it was. What a run started from (`init_from`) counts too.

    Args:
      members: the networks.

    Attributes:
      image_ids: of all these images.
      patients: of those in data sets that are still there, where named.
      is_complete: whether all of it is known.
      description: what is known, and what is not.
    """

    def __init__(self, members: Sequence[Member]):
        self.image_ids: set[str] = set()
        self.patients: set[str] = set()
        self._paths: set[str] = set()
        unknown, gone = sum(member.run is None for member in members), 0
        data = {}
        for run in _runs(members):
            if (run / 'split.json').is_file():
                split, config = run.read_json('split.json'), run.config()
                self.image_ids |= {*split['train'], *split['validation']}
                place = *(config.data[key] for key in _PLACE), config.loss.restoration > 0
                data[place] = config.data  # the same for all folds and stages
            else:
                unknown += 1
        for (*_, unlabelled), named in data.items():
            try:
                found = dataset_lib.find(named, unlabelled=unlabelled)
            except UsageError:
                gone += 1
                continue
            mine = [example for example in found if example.image_id in self.image_ids]
            self._paths |= {example.path for example in mine}
            self.patients |= {e.patient_id for e in mine if e.patient_id != e.image_id}
        self.is_complete = not gone and not unknown
        self.description = (
            f'{len(self.image_ids):,} ImageIds, {len(self._paths):,} files'
            + f'; {gone} data sets are no longer there' * bool(gone)
            + f'; {unknown} networks do not state what they learned from' * bool(unknown)
        )

    def among(self, digests: Mapping[str, str]) -> set[str]:
        """Which of these files have the content of one that was learned from.

        Args:
          digests: path -> SHA-256.
        """
        sizes = {_size(path) for path in digests}
        alike = [path for path in self._paths if _size(path) in sizes]
        known = {digest for path in alike for digest in _digest(path)}
        return {path for path, digest in digests.items() if digest in known}


def _runs(members: Sequence[Member]) -> Iterator[Run]:
    """The runs of the networks, and those that they started from, as far as they are there."""
    waiting, seen = [member.run for member in members if member.run is not None], set()
    while waiting:
        run = waiting.pop()
        if run.path.resolve() in seen or not run.exists:
            continue
        seen.add(run.path.resolve())
        for config, part in layout.runs(run.config(), run.path):
            yield part
            waiting += [Run(config.init_from)] if config.init_from else []


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(path: str) -> Iterator[str]:
    try:
        with open(path, 'rb') as file:
            yield hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError:
        return
