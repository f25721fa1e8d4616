"""`import pneumojax`: quick and complete; a loaded run predicts what the program predicts."""

import ast
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import pydicom
import pytest

import pneumojax
from pneumojax.errors import UsageError
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import Run
from tests.prediction.predictions import results
from tests.tiny_runs import tiny_config, write_run

README = pathlib.Path(__file__).parents[1] / 'README.md'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny', rule=(0.6, 300, 0.55))


@pytest.fixture(scope='module')
def loaded(run):
    return pneumojax.load(run.path, runtime='jax')


# --- importing ---------------------------------------------------------------------------------


def test_importing_it_imports_nothing_but_the_standard_library():
    code = (
        'import sys\nbefore = set(sys.modules)\nimport pneumojax\nprint(*set(sys.modules) - before)'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert {name.split('.')[0] for name in run.stdout.split()} <= {
        'pneumojax',
        *sys.stdlib_module_names,
    }
    assert 'pneumojax' in run.stdout.split()


def test_all_names_can_be_had_and_are_listed():
    assert set(pneumojax.__all__) <= set(dir(pneumojax))
    assert set(pneumojax._PLACES) == set(pneumojax.__all__) - {'__version__'}
    for name in pneumojax.__all__:
        assert getattr(pneumojax, name) is not None
    assert pneumojax.UNet.__name__ == 'UNet'
    assert pneumojax.rle.decode('-1', (2, 2)).sum() == 0
    with pytest.raises(AttributeError, match='no_such_name'):
        pneumojax.no_such_name  # noqa: B018


def test_type_checkers_and_editors_see_the_same_names():
    """mypy itself checks that these imports are right."""
    tree = ast.parse(pathlib.Path(pneumojax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == 'TYPE_CHECKING'
    imported = {
        alias.asname or alias.name: {f'{node.module}:{alias.name}', f'{node.module}.{alias.name}'}
        for node in block.body
        for alias in node.names
    }
    assert set(imported) == set(pneumojax._PLACES)
    assert all(pneumojax._PLACES[name] in places for name, places in imported.items())


# --- a loaded run ------------------------------------------------------------------------------


def predicted(run, path, output, monkeypatch, runtime='jax'):
    """The probabilities and the mask that the program makes of one file."""
    seen = []

    def heatmap(image, probability):
        seen.append(probability)
        return image

    monkeypatch.setattr('pneumojax.drawing.heatmap.heatmap', heatmap)
    assert predict([run], path, output, Options(heatmap=True, runtime=runtime)) == 0
    (row,) = results(output)
    mask = cv2.imread(str(output / 'masks' / f'{row["ImageId"]}.png'), cv2.IMREAD_UNCHANGED)
    return seen[0], mask


@pytest.mark.parametrize('name', ['image0.dcm', 'image3.dcm', 'small.png', 'wide.png'])
def test_it_predicts_what_the_program_predicts(name, run, loaded, images, tmp_path, monkeypatch):
    if name.endswith('.png'):
        shape = (5, 3) if name == 'small.png' else (40, 150)
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        path = tmp_path / name
        cv2.imwrite(str(path), image)
    else:
        path = images / name
        image = pneumojax.read_dicom(path)
    probability, mask = predicted(run, path, tmp_path / 'output', monkeypatch)
    result = loaded(image)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    np.testing.assert_array_equal(result, probability)
    np.testing.assert_array_equal(loaded.mask(result) * 255, mask)


def test_16_bits_count_from_0_to_65535(run, loaded, images, tmp_path, monkeypatch):
    dataset = pydicom.dcmread(images / 'image0.dcm')
    stored = dataset.pixel_array.astype('<u2') * 15
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = stored.tobytes()
    path = tmp_path / 'deep.dcm'
    dataset.save_as(path)
    image = pneumojax.read_dicom(path)
    assert image.dtype == np.uint16
    probability, _ = predicted(run, path, tmp_path / 'output', monkeypatch)
    np.testing.assert_array_equal(loaded(image), probability)
    grey = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    np.testing.assert_array_equal(loaded(grey * np.uint16(257)), loaded(grey))


def test_pixels_need_not_be_square(run, loaded, images, tmp_path, monkeypatch):
    path = images / 'image1.dcm'  # 0.3 mm from row to row, 0.15 mm from column to column
    probability, _ = predicted(run, path, tmp_path / 'output', monkeypatch)
    image = pneumojax.read_dicom(path)
    np.testing.assert_array_equal(loaded(image, aspect=2.0), probability)
    assert (loaded(image) != probability).any()


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (np.zeros((4, 4, 3), np.uint8), r'\(4, 4, 3\).*\[height, width\]'),
        (np.zeros((1, 4, 4), np.uint8), r'\(1, 4, 4\).*\[height, width\]'),
        (np.zeros((0, 4), np.uint8), r'\(0, 4\).*\[height, width\]'),
        (np.zeros((4, 4), np.float32), 'float32: expected uint8'),
        (np.zeros((4, 4), np.int16), 'int16: expected uint8'),
        (np.zeros((4, 4), bool), 'bool: expected uint8'),
    ],
)
def test_another_shape_or_type_is_refused_in_plain_words(loaded, image, words):
    with pytest.raises(ValueError, match=words):
        loaded(image)


@pytest.mark.parametrize('aspect', [0.0, -1.0, float('nan'), float('inf')])
def test_an_impossible_aspect_is_refused(loaded, aspect):
    with pytest.raises(ValueError, match='aspect'):
        loaded(np.zeros((4, 4), np.uint8), aspect)


def test_a_run_without_evaluation_is_refused(tmp_path):
    run = Run(tmp_path / 'run')
    run.start(tiny_config())
    with pytest.raises(UsageError):
        pneumojax.load(run.path)


# --- the README --------------------------------------------------------------------------------


def test_the_readmes_lines_of_python_run(run, phantoms, tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
    for link, target in (('data/phantoms', phantoms), ('runs/demo', run.path)):
        (tmp_path / link).parent.mkdir()
        (tmp_path / link).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(block, scope)
    printed = capsys.readouterr().out
    output = tmp_path / 'output'
    probability, mask = predicted(run, scope['file'], output, monkeypatch, 'auto')
    np.testing.assert_array_equal(scope['probability'], probability)
    np.testing.assert_array_equal(scope['mask'] * 255, mask)
    assert pneumojax.rle.encode(scope['mask']) in printed
