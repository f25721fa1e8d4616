"""The rooms of the package: who may import whom, and what no file may do."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'pneumojax'
MODULES = sorted(PACKAGE.rglob('*.py'))

# Each room may use the rooms after it. What is not named here serves them all.
ROOMS = ('main', 'training', 'inference', 'outputs', 'data')
# These serve every room and each other, but `data` stands alone: it knows no networks and no runs.
SERVANTS = (
    *('models', 'run', 'run_files', 'layout', 'config', 'config_files'),
    *('devices', 'flags', 'launch', 'once', 'progress', 'errors', 'limits', 'compilation'),
    *('checkpoints', 'hosts', 'interrupts', 'lock', 'whole_file'),
)
DATA_MAY_USE = ('data', 'config', 'progress', 'errors', 'limits')


def imports(source, module='pneumojax.x'):
    """Full names of everything imported, at the top or inside a function.

    `from a import b` counts as both a and a.b: b may be a module.
    """
    names = set()
    package = module.split('.')[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = package[: len(package) - node.level + 1]
                base = '.'.join([*parents, base] if base else parents)
            names |= {base} | {f'{base}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ''
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in ('import_module', '__import__'):
                names.add(str(node.args[0].value))
    return names


def room(name):
    """'pneumojax.data.rle' -> 'data'; None for what is not in the package."""
    parts = name.split('.')
    return parts[1] if parts[0] == 'pneumojax' and len(parts) > 1 else None


def module_name(path):
    return '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)


def forbidden(source, module):
    """Rooms that a module imports although it must not."""
    own = room(module)
    used = {room(name) for name in imports(source, module)} - {None, own, '__init__'}
    if own == 'data':
        return used - set(DATA_MAY_USE)
    if own in ROOMS:
        return used & set(ROOMS[: ROOMS.index(own)])
    return used & set(ROOMS)


def test_every_module_belongs_to_a_known_room():
    assert {room(module_name(path)) for path in MODULES} - {'__init__'} == {*ROOMS, *SERVANTS}


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_imports_point_one_way(path):
    assert not forbidden(path.read_text(), module_name(path))


@pytest.mark.parametrize(
    ('module', 'source', 'found'),
    [
        ('pneumojax.data.rle', 'from pneumojax.training import loop', {'training'}),
        ('pneumojax.data.rle', 'def f():\n  import pneumojax.models.unet', {'models'}),
        ('pneumojax.data.rle', 'from pneumojax import run as r, errors', {'run'}),
        ('pneumojax.outputs.x', 'from ..inference import tta', {'inference'}),
        ('pneumojax.models.x', 'import importlib; importlib.import_module("pneumojax.data.rle")',
         {'data'}),
        ('pneumojax.run', 'from pneumojax.data import rle', {'data'}),
        ('pneumojax.inference.x', 'from pneumojax.training import loop', {'training'}),
        ('pneumojax.inference.x', 'from pneumojax.outputs import curves\nimport jax', set()),
        ('pneumojax.training.x', 'from . import loop\nfrom pneumojax import run', set()),
    ],
)  # fmt: skip
def test_the_check_sees_every_kind_of_import(module, source, found):
    assert forbidden(source, module) == found


def test_there_is_no_cycle_between_the_serving_modules():
    used = {
        module_name(p): {n for n in imports(p.read_text(), module_name(p)) if room(n)}
        for p in MODULES
    }
    done = set()

    def visit(name, above):
        assert name not in above, f'{" -> ".join(above)} -> {name}'
        if name in done:
            return
        for other in used.get(name, ()):
            if other in used and other != name:
                visit(other, (*above, name))
        done.add(name)

    for name in used:
        visit(name, ())


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_files_stay_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= (120 if path.name == 'main.py' else 400), f'{lines} lines: split it'


def test_nothing_is_called_utils():
    assert not [p for p in PACKAGE.rglob('*') if p.stem.lower().strip('_') in ('utils', 'util')]


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_nothing_unpickles(path):
    tree = ast.parse(path.read_text())
    banned = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'}
    assert not {name.split('.')[0] for name in imports(path.read_text())} & banned
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            options = {k.arg: getattr(k.value, 'value', None) for k in call.keywords}
            assert options.get('allow_pickle', False) is False
            if ast.unparse(call.func) == 'torch.load':  # its pickles hold tensors or are refused
                assert options.get('weights_only') is True


def test_predicting_from_an_export_imports_no_jax():
    """A first mask takes seconds: these libraries are imported where they are used, late."""
    modules = ['main', 'inference.predict', 'inference.cpu_runtimes', 'inference.export_cache']
    script = '; '.join(f'import pneumojax.{module}' for module in modules) + (
        '; import sys; print([n for n in ("jax", "orbax", "flax", "grain", "matplotlib", '
        '"highdicom", "onnx", "onnxruntime", "openvino") if n in sys.modules])'
    )
    environment = os.environ | {'PYTHONPATH': str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, '-c', script],
        env=environment, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.stdout.strip() == '[]'
