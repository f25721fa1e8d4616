"""The short version of the fuzz driver, what longer ones found, and that it sees what it should."""

import os
import pathlib

import numpy as np
import pytest

from tests.fuzz import run, worker

CORPUS = pathlib.Path(__file__).parent / 'corpus'


@pytest.mark.slow
def test_a_few_hundred_cases_of_every_kind(tmp_path):
    # The others take their time for a start: PyTorch, a trained run.
    names = [n for n in worker.PROGRAM if n not in ('pickled', 'checkpoint', 'config')]
    pytest.importorskip('gdcm')
    counts, broken = run.fuzz(500, 2026, names, 1, tmp_path)
    assert not broken, broken
    assert {target for target, _ in counts} == set(names)
    assert any('pixel for pixel as pydicom' in happened for _, happened in counts)


@pytest.mark.parametrize('path', sorted(CORPUS.glob('*/*')), ids=lambda p: p.stem)
def test_what_was_found_stays_mended(tmp_path, path):
    pytest.importorskip('gdcm')
    target = _target(path.parent.name, tmp_path)
    assert worker.judge(target, {target.path.name: path.read_bytes()})[0] == 'fine'


def _target(name, folder, made={}):  # noqa: B006 (seeds are made once)
    if name not in made:
        folder = folder.parent / f'target-{name}'
        made[name] = worker.make_target(name, folder)
    return made[name]


def test_the_bombs_are_refused(tmp_path):
    pytest.importorskip('gdcm')
    target = _target('dicom', tmp_path)
    for bomb in target.bombs:
        kind, happened = worker.judge(target, {'input.dcm': bomb})
        assert (kind, happened) == ('fine', 'refused: Unreadable')


class Broken:
    """A target that does what no target may."""

    def make(self, rng):
        return {'what': rng.choice([b'crash', b'hang', b'memory', b'wrong', b'error', b'fine'])}

    def check(self, case):
        match case['what']:
            case b'crash':
                os.abort()
            case b'hang':
                while True:
                    pass
            case b'memory':
                return f'fine, {np.ones(900 << 20, np.uint8)[-1]}'
            case b'wrong':
                raise worker.Wrong('two is three')
            case b'error':
                raise KeyError('x')
        return 'fine'


MAKE = {'broken': lambda folder: Broken()}


def test_the_driver_sees_every_way_of_breaking(tmp_path):
    counts, broken = run.fuzz(8, 10, ['broken'], 2, tmp_path, seconds=8.0)
    kinds = {kind for _, _, kind, _ in broken}
    assert counts['broken', 'fine'], counts
    assert kinds == {'crash', 'hang', 'memory', 'wrong success', 'undocumented error'}
    assert len(list(tmp_path.iterdir())) == len(broken)
    for name, index, kind, _ in broken:
        assert (tmp_path / f'{name}-10-{index}' / 'what.txt').read_text().startswith(kind)
