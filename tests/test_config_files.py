"""Config files by name, by path, with an argument; one's own beside the project's."""

import sys
import types

import pytest

from configs import base
from pneumojax import config_files
from pneumojax.errors import UsageError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_config_is_known_by_its_name_and_by_its_path(tmp_path, monkeypatch):
    files = sorted(config_files.folder().rglob('[!_]*.py'))
    expected = [f.relative_to(config_files.folder()).with_suffix('').as_posix() for f in files]
    assert config_files.names() == sorted(expected)
    assert {'base', 'demo', 'stage1', 'stage2'} <= set(expected)
    monkeypatch.chdir(tmp_path)  # outside a checkout `configs/NAME.py` is the project's own too
    for name in expected:
        by_name = config_files.load(name)
        assert by_name.to_dict() == config_files.load(f'configs/{name}.py').to_dict()
        assert by_name.is_locked
    assert config_files.load('base').to_dict() == base.get_config().to_dict()


def test_a_file_in_the_working_folder_comes_before_the_projects_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'configs' / 'common.py', 'SIZE = 96\n')
    text = 'from configs import base, common\n\ndef get_config():\n    config = base.get_config()\n'
    text += '    config.image_size = common.SIZE\n    return config\n'
    write(tmp_path / 'configs' / 'stage1.py', text)
    assert config_files.load('configs/stage1.py').image_size == 96  # its base is the project's
    assert config_files.load('stage1').image_size == 256
    write(tmp_path / 'configs' / 'base.py', 'def get_config():\n    raise ValueError("mine")\n')
    with pytest.raises(UsageError, match=r'configs/stage1\.py, line 4: ValueError: mine'):
        config_files.load('configs/stage1.py')
    assert config_files.load('configs/stage2.py').image_size == 512


def test_what_follows_the_colon_is_given_to_get_config(tmp_path):
    text = 'from configs import stage2\n\ndef get_config(text="x"):\n    c = stage2.get_config()\n'
    path = write(tmp_path / 'mine.py', text + '    c.name = text\n    return c\n')
    assert config_files.load(f'{path}:a:b').name == 'a:b'
    assert config_files.load(f'{path}:').name == ''
    assert config_files.load(str(path)).name == 'x'


def test_a_module_called_configs_of_another_program_is_left_alone(monkeypatch):
    theirs, below = types.ModuleType('configs'), types.ModuleType('configs.base')
    monkeypatch.setitem(sys.modules, 'configs', theirs)
    monkeypatch.setitem(sys.modules, 'configs.base', below)
    before = {name for name in sys.modules if name.startswith('configs')}
    assert config_files.load('demo').name == 'demo'
    assert sys.modules['configs'] is theirs
    assert sys.modules['configs.base'] is below
    assert {name for name in sys.modules if name.startswith('configs')} == before


@pytest.mark.parametrize(
    ('place', 'text', 'expected'),
    [
        ('stag2', None, r"no config named 'stag2'; the names are .*base, .*demo, .* ends in \.py"),
        ('../configs/stage2', None, 'no config named'),
        ('mine.py', None, "no file 'mine.py'"),
        ('configs/mine.py', None, "no file 'configs/mine.py'"),
        ('.py', None, "no file '.py'"),
        ('stage2:quick', None, r'stage2\.py: TypeError: get_config\(\) takes 0'),
        ('mine.py', 'x = 1\ndef get_config():\n    return y\n', 'mine.py, line 3: NameError'),
        ('mine.py', 'def get_config(:\n', 'mine.py: SyntaxError'),
        ('mine.py', 'from configs import nothing\n', 'mine.py, line 1: ImportError'),
        ('mine.py', 'x = 1\n', "mine.py: AttributeError: .*'get_config'"),
        ('mine.py', 'def get_config():\n    pass\n', 'returned NoneType, expected a ConfigDict'),
        ('mine.py', '\0', 'mine.py: '),
    ],
)  # fmt: skip
def test_mistakes_name_the_file_and_the_line(tmp_path, monkeypatch, place, text, expected):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        write(tmp_path / place, text)
    with pytest.raises(UsageError, match=expected):
        config_files.load(place)
    assert 'config_file' not in sys.modules
