"""A file or folder is the old one or the new one, whatever happens while it is written."""

import os
import pathlib
import subprocess
import sys

import pytest

from pneumojax.errors import UsageError
from pneumojax.system import atomic
from pneumojax.system.atomic import new_folder, replacing


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with replacing(path) as unfinished:
        assert unfinished.parent == path.parent  # a rename between file systems is a copy
        unfinished.write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_nothing_has_changed(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def fail_in_the_middle():
        with replacing(path) as unfinished:
            unfinished.write_text('half')
            raise OSError('the disk is full')

    with pytest.raises(OSError, match='full'):
        fail_in_the_middle()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_never_wrote_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / 'a.txt'):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('there', [False, True])
def test_a_folder_appears_when_it_is_whole_and_all_may_read_it(tmp_path, there):
    path = tmp_path / 'a'
    if there:
        path.mkdir()
    with new_folder(path) as unfinished:
        assert unfinished.parent == path.parent
        (unfinished / 'b').write_text('new')
        assert path.exists() == there
    assert (path / 'b').read_text() == 'new'
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_or_comes_second_leaves_nothing(tmp_path):
    path = tmp_path / 'a'

    def second():
        with new_folder(path) as unfinished:
            path.mkdir()
            (path / 'of another').touch()
            (unfinished / 'b').touch()

    def failing():
        with new_folder(path):
            raise ValueError('in the middle')

    with pytest.raises(ValueError, match='middle'):
        failing()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match='not empty'):
        second()
    assert [p.name for p in tmp_path.rglob('*')] == ['a', 'of another']


def test_text_and_bytes_replace_the_old_file(tmp_path):
    path = tmp_path / 'a'
    for content in ('grün', b'\xff\0'):
        atomic.write(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_never_takes_the_place_of_another(tmp_path, monkeypatch):
    path = tmp_path / 'made' / 'a'
    atomic.write_new(path, b'first')
    with pytest.raises(UsageError, match='exists already and is not overwritten'):
        atomic.write_new(path, b'second')
    monkeypatch.setattr(atomic, 'refuse_existing', lambda *_: None)  # the other came meanwhile
    with pytest.raises(UsageError, match='exists already and is not overwritten'):
        atomic.write_new(path, b'second')
    assert path.read_bytes() == b'first'
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_of_another_process_may_do(tmp_path):
    path = tmp_path / 'a'
    with new_folder(path, lambda folder: (folder / 'whole').exists()) as unfinished:
        path.mkdir()
        (path / 'whole').touch()
        (unfinished / 'mine').touch()
    assert [p.name for p in tmp_path.rglob('*')] == ['a', 'whole']


PROGRAM = """
import sys
from pneumojax.system import atomic
with atomic.new_folder(sys.argv[1]) as unfinished:
    print(unfinished, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / '.mine').mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', PROGRAM, tmp_path / name], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name in ('dead', 'alive')
    ]  # fmt: skip
    try:
        dead, alive = (process.stdout.readline().strip() for process in processes)
        processes[0].kill()
        processes[0].wait()
        with new_folder(tmp_path / 'new'):
            pass
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert {str(p) for p in tmp_path.iterdir()} == {
        str(tmp_path / '.mine'), str(tmp_path / 'new'), alive
    }  # fmt: skip
    assert dead not in map(str, tmp_path.iterdir())


WRITER = """
import pathlib, sys
from pneumojax.system import atomic
with atomic.replacing(sys.argv[1]) as unfinished:
    unfinished.write_text('a name')
    print(unfinished, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_writer_left_is_swept_but_never_a_living_one_s(tmp_path):
    user = tmp_path / '.bashrc'
    user.touch()
    dead, alive = (
        subprocess.Popen(
            [sys.executable, '-c', WRITER, tmp_path / name], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for name in ('dead', 'alive')
    )  # fmt: skip
    try:
        left, writing = (pathlib.Path(p.stdout.readline().strip()) for p in (dead, alive))
        dead.kill()
        dead.wait()
        atomic.sweep(tmp_path)
        assert {*tmp_path.iterdir()} == {left, writing, user}  # one of them still writes
        alive.communicate()
        atomic.sweep(tmp_path, 'another')
        assert left.exists()
        atomic.sweep(tmp_path)
    finally:
        for process in (dead, alive):
            process.kill()
            process.communicate()
    assert {*tmp_path.iterdir()} == {tmp_path / 'alive', user}
    atomic.sweep(tmp_path / 'nowhere')


def test_files_and_their_names_are_on_the_disk_before_it_returns(tmp_path, monkeypatch):
    calls, replace = [], pathlib.Path.replace

    def fsync(descriptor):
        calls.append(os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}')))

    def renamed(self, target):
        calls.append('rename')
        return replace(self, target)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(pathlib.Path, 'replace', renamed)
    atomic.write(tmp_path / 'a', 'x')
    assert calls[0].endswith('.a')
    assert calls[1:] == ['rename', tmp_path.name]


@pytest.mark.parametrize('wrap', [atomic.replacing, atomic.new_folder, atomic.naming])
def test_a_full_disk_names_the_file(tmp_path, wrap):
    def write():
        with wrap(tmp_path / 'a'), open('/dev/full', 'wb', buffering=0) as file:
            file.write(b'x')  # an error without a name

    with pytest.raises(OSError, match='No space left on device') as caught:
        write()
    assert caught.value.filename == str(tmp_path / 'a')
    assert not list(tmp_path.iterdir())


def test_the_umask_is_respected(tmp_path):
    before = os.umask(0o077)
    try:
        atomic.write(tmp_path / 'a', 'x')
        with new_folder(tmp_path / 'b') as unfinished:
            (unfinished / 'c').touch()
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in map(tmp_path.joinpath, ('a', 'b', 'b/c'))] == [
        0o600, 0o700, 0o600,
    ]  # fmt: skip
