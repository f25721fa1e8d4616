"""Predictions into a folder that holds one already, of another network or of other inputs."""

import json
import logging
import os
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumojax.errors import UsageError
from pneumojax.prediction.folder import LOCK, OutputFolder
from pneumojax.prediction.journal import Journal
from pneumojax.system import locks, progress
from tests.prediction.predictions import contents, predict, results
from tests.tiny_runs import write_run


def named_alike(path, seed):
    """A run of another seed, which nothing but its weights and its seed tells from the others."""
    run = write_run(path, seed=seed)
    config = json.loads((run / 'config.json').read_text())
    run.write_json('config.json', config | {'name': 'alike'})
    return run


@pytest.fixture
def source(images, tmp_path):
    """Three radiographs."""
    folder = tmp_path / 'in'
    folder.mkdir()
    for i, name in enumerate('abc'):
        shutil.copy(images / f'image{i + 2}.dcm', folder / f'{name}.dcm')
    return folder


def written(folder):
    """Names of the files about images, such as masks/a.png."""
    files = [path for name in ('masks', 'overlays', 'heatmaps', 'seg')
             for path in (folder / name).glob('*')]  # fmt: skip
    return {str(path.relative_to(folder)) for path in files}


def all_about(*names, heatmap=False):
    kinds = {'masks': 'png', 'overlays': 'png', 'seg': 'dcm'}
    kinds |= {'heatmaps': 'png'} if heatmap else {}
    return {f'{kind}/{name}.{suffix}' for name in names for kind, suffix in kinds.items()}


# --- another network ---------------------------------------------------------------------------


def test_another_training_in_the_same_directory_is_another_prediction(source, tmp_path):
    folder = tmp_path / 'out'
    assert predict([named_alike(tmp_path / 'run', 0)], source, folder) == 0
    before = contents(folder)
    shutil.rmtree(tmp_path / 'run')
    run = named_alike(tmp_path / 'run', 1)
    with pytest.raises(UsageError, match=r'another prediction \(runs\.0\.digest: .* -> '):
        predict([run], source, folder)
    assert contents(folder) == before
    assert predict([run], source, tmp_path / 'other') == 0
    old, new = (pydicom.dcmread(tmp_path / name / 'seg/a.dcm') for name in ('out', 'other'))
    assert old.SOPInstanceUID != new.SOPInstanceUID  # two different masks


@pytest.mark.parametrize(
    ('key', 'value'), [('normalization', 'imagenet_grey'), ('classification_head', 'gate')]
)
def test_another_network_around_the_same_weights_is_another_prediction(
    run, images, output, tmp_path, key, value
):
    shutil.copytree(run.path, tmp_path / 'run')
    config = json.loads((run / 'config.json').read_text())
    stated = json.loads((output / 'predict.json').read_text())
    assert stated['runs'][0][key] == config['model'][key]
    stated['runs'][0][key] = value
    with pytest.raises(UsageError, match=rf'another prediction \(runs\.0\.{key}: '):
        OutputFolder(output, stated, ()).__enter__()


def test_a_folder_of_an_earlier_version_says_what_to_do(run, images, output, tmp_path):
    shutil.copytree(output, tmp_path / 'out')
    stated = json.loads((tmp_path / 'out/predict.json').read_text())
    del stated['version']
    for key in ('digest', 'normalization', 'classification_head'):
        del stated['runs'][0][key]
    (tmp_path / 'out/predict.json').write_text(json.dumps(stated))
    with pytest.raises(UsageError, match=r'an earlier version, .* give another folder, or delete'):
        predict([run], images, tmp_path / 'out')


def test_thresholds_of_another_training_are_refused(source, tmp_path):
    run = named_alike(tmp_path / 'run', 0)
    digest = run.checkpoints.weights_digest(7, averaged=False)
    stated = json.loads((run / 'thresholds.json').read_text())
    run.write_json('thresholds.json', stated | {'digest': digest})
    assert predict([run], source, tmp_path / 'out') == 0
    shutil.rmtree(run / 'checkpoints')
    shutil.copytree(named_alike(tmp_path / 'other', 1) / 'checkpoints', run / 'checkpoints')
    with pytest.raises(UsageError, match=r'made for other weights .* --mode=evaluate'):
        predict([run], source, tmp_path / 'out')


# --- other inputs ------------------------------------------------------------------------------


def test_outputs_about_inputs_that_are_gone_cut_or_replaced_are_removed(
    run, images, source, tmp_path, messages
):
    progress.log.setLevel(logging.INFO)
    folder = tmp_path / 'out'
    (source / 'd.dcm').write_bytes((source / 'a.dcm').read_bytes())
    assert predict([run], source, folder, heatmap=True) == 0
    assert written(folder) == all_about('a', 'b', 'c', 'd', heatmap=True)
    assert results(folder)[-1]['reason'] == 'same SOPInstanceUID as a.dcm'
    untouched = (folder / 'masks/d.png').stat().st_mtime_ns
    (source / 'a.dcm').unlink()
    (source / 'b.dcm').write_bytes((source / 'b.dcm').read_bytes()[:-300])
    shutil.copy(images / 'image7.dcm', source / 'c.dcm')
    assert predict([run], source, folder) == 3
    # A picture of d that is no longer asked for is still one of d.
    assert written(folder) == all_about('c', 'd') | {'heatmaps/d.png'}
    assert [(row['file'], row['status']) for row in results(folder)] == [
        ('b.dcm', 'error'), ('c.dcm', 'ok'), ('d.dcm', 'ok'),
    ]  # fmt: skip
    assert any(message.startswith('removed 12 files about inputs') for message in messages)
    assert results(folder)[-1]['reason'] == ''  # while a was there: the same SOPInstanceUID as a
    assert (folder / 'masks/d.png').stat().st_mtime_ns == untouched
    predict([run], source, tmp_path / 'fresh')
    found, fresh = contents(folder), contents(tmp_path / 'fresh')
    assert {name for name in fresh if found[name] != fresh[name]} == {'report.html'}  # heat map


def test_what_a_user_changed_stays_and_is_named(run, source, tmp_path, messages):
    folder = tmp_path / 'out'
    assert predict([run], source, folder) == 0
    picture = np.asarray(Image.open(folder / 'masks/a.png')).copy()
    picture[:9] = 255
    Image.fromarray(picture).save(folder / 'masks/a.png')
    (folder / 'masks/notes.txt').write_text('mine')
    kept = (folder / 'masks/a.png').read_bytes()
    (source / 'a.dcm').unlink()
    assert predict([run], source, folder) == 0
    assert written(folder) == all_about('b', 'c') | {'masks/a.png', 'masks/notes.txt'}
    assert (folder / 'masks/a.png').read_bytes() == kept
    assert any(m.startswith('2 files, such as') and 'masks/a.png' in m for m in messages)


def test_a_name_that_now_belongs_to_another_input_keeps_its_outputs(run, source, tmp_path):
    folder = tmp_path / 'out'
    assert predict([run], source, folder) == 0
    (source / 'sub').mkdir()
    os.rename(source / 'a.dcm', source / 'sub' / 'a.dcm')
    for _ in range(2):  # first it is given the name, then it has it
        assert predict([run], source, folder) == 0
        assert written(folder) == all_about('a', 'b', 'c')
        assert results(folder)[-1]['ImageId'] == 'a'
    os.rename(source / 'sub' / 'a.dcm', source / 'a.dcm')  # its old row names a file of another
    shutil.copy(source / 'b.dcm', source / 'sub' / 'a.dcm')
    predict([run], source, folder)
    assert written(folder) == all_about('a', 'b', 'c', 'a-2')


def test_a_journal_removes_nothing_elsewhere(run, source, tmp_path):
    folder, precious = tmp_path / 'out', tmp_path / 'precious.png'
    assert predict([run], source, folder) == 0
    precious.write_text('mine')
    with Journal(folder / '.journal.jsonl') as journal:
        row = journal['a.dcm']
        row['written'] = {'../precious.png': [4, 0], 'masks/a.png': 'x', **row['written']}
        journal.add(row | {'file': 'gone.dcm', 'ImageId': 'gone'})
        journal.add(row | {'file': 'gone2.dcm', 'ImageId': 'gone2', 'written': 7})
    assert predict([run], source, folder) == 0
    assert precious.read_text() == 'mine'


# --- one at a time, and private ----------------------------------------------------------------


def test_a_second_prediction_into_the_folder_is_refused(run, source, tmp_path):
    folder = tmp_path / 'out'
    assert predict([run], source, folder) == 0
    before = contents(folder)
    with locks.LockFile(folder / LOCK):
        for _ in range(2):
            with pytest.raises(UsageError, match=rf'{folder} is in use by process {os.getpid()}'):
                predict([run], source, folder)
    assert contents(folder) == before
    (tmp_path / 'new').mkdir()
    with (
        locks.LockFile(tmp_path / 'new' / LOCK),  # has not written what it predicts
        pytest.raises(UsageError, match='is in use by process'),
    ):
        predict([run], source, tmp_path / 'new')


def test_what_a_killed_prediction_left_unfinished_is_removed(tmp_path):
    """A SEG names its patient, also one that is half written."""
    with OutputFolder(tmp_path / 'out', {}, ('seg',)) as folder:
        (folder / 'seg/a.dcm').touch()
    left = [tmp_path / 'out' / name for name in ('.0a1b2c3d.results.csv', 'seg/.0a1b2c3d.b.dcm')]
    kept = [tmp_path / 'out' / name for name in ('seg/a.dcm', 'seg/.notes', 'seg/.0a1b2c3d')]
    for path in (*left, *kept):
        path.touch()
    with OutputFolder(tmp_path / 'out', {}, ('seg',)):
        pass
    assert [path.exists() for path in (*left, *kept)] == [False, False, True, True, True]


def test_a_journal_that_another_process_wrote_gives_no_other_row(tmp_path):
    with Journal(tmp_path / 'j') as journal, Journal(tmp_path / 'j') as other:
        other.add({'file': 'b', 'ImageId': 'b'})
        journal.add({'file': 'a', 'ImageId': 'a'})
        journal._start['a'] = 0
        with pytest.raises(UsageError, match='changed by another process'):
            journal['a']


def test_private_is_private_and_afterwards_nothing_has_changed(run, source, tmp_path):
    folder, umask = tmp_path / 'out', os.umask(0o022)
    try:
        assert predict([run], source, folder) == 0
        assert (folder / 'seg/a.dcm').stat().st_mode & 0o777 == 0o644
        (folder / 'seg/a.dcm').unlink()
        assert predict([run], source, folder, private=True) == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / 'seg/a.dcm').stat().st_mode & 0o777 == 0o600
    assert (folder / 'results.csv').stat().st_mode & 0o777 == 0o600
