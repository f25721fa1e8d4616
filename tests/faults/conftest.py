"""A disk that gets full."""

import subprocess

import pytest


def small_disk(folder, size):
    """Mounts a file system of that size; skips where that is not allowed."""
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip('there is no mount here')
    if done.returncode:
        pytest.skip(f'mounting is not allowed here: {done.stderr.strip()}')


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / 'disk'
    small_disk(folder, '400k')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)
