"""Compiled programs are kept where that is possible, and a run never depends on it."""

import os
import pathlib
import subprocess
import sys

import pytest

from pneumojax.errors import UsageError
from pneumojax.models import download
from pneumojax.system import compilation


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """What JAX would be told, without telling it."""
    monkeypatch.setenv(compilation.VARIABLE, 'unchanged')
    monkeypatch.setitem(sys.modules, 'jax', None)
    monkeypatch.delitem(sys.modules, 'jax')


def test_a_folder_that_jax_was_told_counts(tmp_path):
    assert str(compilation.keep(None)) == os.environ[compilation.VARIABLE] == 'unchanged'
    path = compilation.keep(str(tmp_path))
    assert path.parent == tmp_path
    assert os.environ[compilation.VARIABLE] == str(path)
    assert list(path.iterdir()) == []


def test_the_default_is_beside_the_other_downloads(tmp_path, monkeypatch):
    monkeypatch.delenv(compilation.VARIABLE)
    monkeypatch.setenv('PNEUMOJAX_CACHE', str(tmp_path))
    assert compilation.keep(None).parent == tmp_path / 'compiled'
    assert compilation.keep('') is None
    assert compilation.VARIABLE not in os.environ


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the list of users, as in some containers."""

    def getpwuid(uid):
        raise KeyError(uid)

    monkeypatch.setattr('pwd.getpwuid', getpwuid)
    for variable in ('HOME', 'PNEUMOJAX_CACHE', 'XDG_CACHE_HOME', compilation.VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_without_a_home_directory_the_run_goes_on(homeless, tmp_path, messages):
    for folder in (None, '~/compiled', '~no_such_user/compiled'):
        assert compilation.keep(folder) is None
    assert all('PNEUMOJAX_CACHE' in message for message in messages)
    with pytest.raises(UsageError, match=r'no such home directory; set .* PNEUMOJAX_CACHE'):
        download.resolve('imagenet')
    with pytest.raises(UsageError, match='no such file'):
        download.resolve('~/weights.pth')
    assert compilation.keep(str(tmp_path)).parent == tmp_path


def test_where_nothing_can_be_written_the_run_goes_on(tmp_path, caplog, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(compilation.log, 'propagate', True)  # whatever ran before in this process
    caplog.set_level('INFO')
    assert compilation.keep(str(tmp_path / 'file')) is None
    assert compilation.VARIABLE not in os.environ
    assert 'are not kept' in caplog.text


def test_another_processor_has_another_folder(tmp_path, monkeypatch):
    before = compilation.keep(str(tmp_path))
    monkeypatch.setattr(compilation.platform, 'processor', lambda: 'another')
    assert compilation.keep(str(tmp_path)) != before


PROGRAM = """
import sys
from pneumojax.system import compilation
compilation.keep(sys.argv[1])
import jax
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
print(jax.jit(lambda x: x * 2 + 1)(20.0))
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
    seen = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, '-c', PROGRAM, str(tmp_path)],
            env=environment | {'PYTHONPATH': os.getcwd()}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.stdout == '41.0\n', done.stderr
        seen.append({p.name for p in tmp_path.rglob('*-cache')})
    assert seen[0]
    assert seen[0] == seen[1]


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv('PNEUMOJAX_CACHE', raising=False)
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    assert compilation.cache_folder() == pathlib.Path.home() / '.cache' / 'pneumojax'
    monkeypatch.setenv('XDG_CACHE_HOME', '/elsewhere')
    assert compilation.cache_folder() == pathlib.Path('/elsewhere/pneumojax')
    monkeypatch.setenv('PNEUMOJAX_CACHE', '/mine')
    assert compilation.cache_folder() == pathlib.Path('/mine')
