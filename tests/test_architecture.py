"""The folders of the package: which may import which, and what no file may do."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from tests.waiting import PATIENCE

PACKAGE = pathlib.Path(__file__).parents[1] / 'pneumojax'
MODULES = sorted(PACKAGE.rglob('*.py'))

# Each layer may import from the layers below it. Folders of one layer do not know each other, and
# `data` is one folder here: `DATA` gives the order inside it.
LAYERS = (
    ('main',),
    ('serving',),
    ('experiments', 'prediction'),
    ('runtimes',),
    ('training', 'evaluation'),
    ('models',),
    ('data', 'runs', 'drawing'),
    ('system', 'config'),
    ('augment', 'errors'),
)
FILES = {  # the files at the top of the package, and the layer that each is part of
    'main': 'main',
    'flags': 'main',
    'launch': 'main',
    'config': 'config',
    'config_schema': 'config',
    'config_files': 'config',
    'errors': 'errors',
}
DATA = ('phantoms', 'cache', 'datasets', 'files')


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


def module_name(path):
    return '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)


NAMES = {module_name(path) for path in MODULES}


def module_of(name):
    """The module that an imported name stands in, such as that of a function; None for others'."""
    while name and name not in NAMES:
        name = name.rpartition('.')[0]
    return name or None


def folder(module, depth=1):
    """'pneumojax.data.rle' -> 'data'; None where it lies less deep."""
    parts = module.split('.')[1:]
    if depth == 1:
        return FILES.get(parts[0], parts[0])
    return parts[depth - 1] if len(parts) > depth else None


def forbidden(source, module):
    """Folders that a module imports from although they are not below it."""
    found = set()
    levels = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = folder(module)
    for name in imports(source, module):
        if not name.startswith('pneumojax.'):
            continue
        other = folder(module_of(name) or name)
        if other != own and levels.get(other, len(LAYERS)) <= levels[own]:
            found.add(other)
    return found


def test_every_folder_has_its_place_in_the_order():
    modules = NAMES - {'pneumojax.__init__'}
    assert {folder(name) for name in modules} == {name for layer in LAYERS for name in layer}
    inside = {folder(name, 2) for name in modules if folder(name) == 'data'}
    assert inside - {None} == set(DATA)
    files = {path.stem for path in PACKAGE.glob('*.py')} - {'__init__'}
    assert files == set(FILES)


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_imports_point_one_way(path):
    if path != PACKAGE / '__init__.py':  # the public face may show anything
        assert not forbidden(path.read_text(), module_name(path))


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_imports_point_one_way_inside_data(path):
    own = module_name(path)
    inner = folder(own, 2) if folder(own) == 'data' else None
    if inner is None:
        return
    for name in imports(path.read_text(), own):
        other = folder(name, 2) if name.startswith('pneumojax.data.') else None
        if other in DATA and other != inner:
            assert DATA.index(other) > DATA.index(inner), name


@pytest.mark.parametrize(
    ('module', 'source', 'found'),
    [
        ('pneumojax.data.rle', 'from pneumojax.training import loop', {'training'}),
        ('pneumojax.data.rle', 'def f():\n  import pneumojax.models.unet', {'models'}),
        ('pneumojax.data.rle', 'from pneumojax.runs import run as r, layout', {'runs'}),
        ('pneumojax.drawing.x', 'from ..evaluation import metrics', {'evaluation'}),
        ('pneumojax.system.x', 'import importlib; importlib.import_module("pneumojax.data.rle")',
         {'data'}),
        ('pneumojax.runs.run', 'from pneumojax.data import rle', {'data'}),
        ('pneumojax.evaluation.x', 'from pneumojax.training import loop', {'training'}),
        ('pneumojax.training.x', 'from pneumojax.evaluation.metrics import dice', {'evaluation'}),
        ('pneumojax.prediction.x', 'from pneumojax.experiments import stages', {'experiments'}),
        ('pneumojax.augment.x', 'from pneumojax.errors import UsageError', {'errors'}),
        ('pneumojax.config', 'from pneumojax import flags', {'main'}),
        ('pneumojax.prediction.x', 'from pneumojax.drawing import curves\nimport jax', set()),
        ('pneumojax.training.x', 'from . import loop\nfrom pneumojax.runs import run', set()),
    ],
)  # fmt: skip
def test_the_check_sees_every_kind_of_import(module, source, found):
    assert forbidden(source, module) == found


def test_no_module_imports_itself_in_a_circle():
    used = {
        module_name(p): {module_of(n) for n in imports(p.read_text(), module_name(p))}
        for p in MODULES
    }
    used['pneumojax.__init__'] = set()
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


@pytest.mark.parametrize('path', MODULES, ids=module_name)
def test_runtimes_that_send_telemetry_are_imported_where_it_is_turned_off(path):
    names = {name.split('.')[0] for name in imports(path.read_text())}
    assert path.stem == 'cpu_runtimes' or not names & {'openvino', 'onnxruntime'}


def test_predicting_from_an_export_imports_no_jax():
    """A first mask takes seconds: these libraries are imported where they are used, late."""
    modules = ['main', 'prediction.predict', 'runtimes.cpu_runtimes', 'runtimes.export_cache']
    script = '; '.join(f'import pneumojax.{module}' for module in modules) + (
        '; import sys; print([n for n in ("jax", "orbax", "flax", "grain", "matplotlib", '
        '"highdicom", "onnx", "onnxruntime", "openvino") if n in sys.modules])'
    )
    environment = os.environ | {'PYTHONPATH': str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, '-c', script],
        env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert result.stdout.strip() == '[]'
