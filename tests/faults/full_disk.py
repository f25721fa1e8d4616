"""A disk that gets full at any moment of any mode of the program.

    python -m tests.faults.full_disk --tries=6 --seed=0 [--modes=export,convert]

Each try runs one mode on a disk (a tmpfs, for which it must run as root) that lacks a part of what
the mode writes. It must end with status 2 and one line that names a file or folder on the disk and
says that no space is left. What stands under its final name must be whole. With room again, the
same command must end with the files, bit for bit, of a run that always had room.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

from tests.faults.kill import Lost, Trials
from tests.faults.modes import MODES, Mode, Place

_ROOM = 4 << 30


class Disk(Place):
    """A place whose folder is a file system of its own."""

    def begin(self, mode: Mode) -> None:
        """An empty disk with what the mode needs."""
        self.end()
        self.folder.mkdir(exist_ok=True)
        subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', f'size={_ROOM}', 'tmpfs', self.folder], check=True
        )
        self.copy_needs(mode)

    def end(self) -> None:
        """The disk is gone."""
        if self.folder.is_mount():
            subprocess.run(['umount', '-l', self.folder], check=True)

    @property
    def used(self) -> int:
        """Bytes."""
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def limit(self, size: int) -> None:
        """The disk holds so many bytes."""
        subprocess.run(['mount', '-o', f'remount,size={size}', self.folder], check=True)


def one_try(trials: Trials, disk: Disk, lacking: float) -> str:
    """Runs a mode while part of the room is lacking, and again; what happened first."""
    disk.begin(trials.mode)
    disk.limit(disk.used + int((1 - lacking) * trials.written))
    status = disk.start(trials.mode.arguments).wait(trials.limit)
    said = disk.last_lines()
    last = said.strip().splitlines()[-1]
    trials.look()
    if status not in (0, 2) or 'Traceback' in said:
        raise Lost(f'status {status}: {said}')
    if status == 2 and not (last.startswith('pneumojax: ') and 'o space left' in last):
        raise Lost(f'it says {last!r}')
    disk.limit(_ROOM)
    trials.end()
    if status == 0:
        return 'it fitted'
    print(f'  {lacking:.0%} lacking: {last}', flush=True)
    return 'said so'


def main(arguments=None) -> None:
    """SystemExit when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tries', type=int, default=6, help='of each mode')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--modes', default=','.join(MODES))
    parser.add_argument('--root', type=pathlib.Path, help='kept for the next time; default: none')
    options = parser.parse_args(arguments)
    root = options.root or pathlib.Path(tempfile.mkdtemp(prefix='full-disk-'))
    disk = Disk(root)
    disk.make_needs()
    lost = 0
    try:
        for name in options.modes.split(','):
            disk.begin(MODES[name])
            before = disk.used
            trials = Trials(disk, name, [])
            trials.written = disk.used - before
            dice, counts = random.Random(f'{options.seed} {name}'), collections.Counter()
            for number in range(options.tries):
                lacking = 1 - (number + dice.random()) / options.tries
                try:
                    counts[one_try(trials, disk, lacking)] += 1
                except Lost as error:
                    counts['lost'] += 1
                    print(f'LOST: {name}, {lacking:.1%} lacking: {error}', flush=True)
            lost += counts['lost']
            print(json.dumps({'mode': name, 'bytes': trials.written, **counts}), flush=True)
    finally:
        disk.end()
    if not options.root:
        shutil.rmtree(root)
    if lost:
        raise SystemExit('something was lost')


if __name__ == '__main__':
    main()
