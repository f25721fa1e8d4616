"""Predictions that are refused or stopped: what was there stays as it was."""

import json
import os

import pytest

from pneumojax.errors import UsageError
from pneumojax.prediction.options import Options
from pneumojax.runs.run import Run
from tests.prediction.predictions import contents, predict, results
from tests.tiny_runs import write_run


def test_another_prediction_is_refused(run, images, output, tmp_path):
    before = contents(output)
    other = write_run(tmp_path / 'other', seed=3)
    for runs, source, options in (
        ([other], images, {}),
        ([run, other], images, {}),
        ([run], images / 'image1.dcm', {}),
        ([run], images, {'seg': 'fractional'}),
    ):
        with pytest.raises(UsageError, match='another prediction'):
            predict(runs, source, output, heatmap=True, **options)
    assert contents(output) == before


def test_outputs_that_cannot_be_used(run, images, tmp_path):
    (tmp_path / 'file').write_text('x')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'precious.txt').write_text('x')
    with pytest.raises(UsageError, match='cannot write'):
        predict([run], images, tmp_path / 'file' / 'out')
    with pytest.raises(UsageError, match='not empty'):
        predict([run], images, tmp_path / 'full')
    with pytest.raises(UsageError, match='the input itself'):
        predict([run], images, images)
    assert os.listdir(tmp_path / 'full') == ['precious.txt']


def test_runs_that_cannot_be_used(images, tmp_path):
    run = write_run(tmp_path / 'run')
    stated = json.loads((run / 'thresholds.json').read_text())
    for change, expected in (
        ({'step': 6}, '--mode=evaluate'), ({'top': 2}, '--mode=evaluate'),
        ({'image_size': 64}, '--mode=evaluate'), ({'flips': ['sideways']}, '--mode=evaluate'),
    ):  # fmt: skip
        run.write_json('thresholds.json', stated | change)
        with pytest.raises(UsageError, match=expected):
            predict([run], images, tmp_path / 'out')
    (run / 'thresholds.json').unlink()
    with pytest.raises(UsageError, match='--mode=evaluate'):
        predict([run], images, tmp_path / 'out')
    with pytest.raises(UsageError, match='not a run directory'):
        predict([Run(tmp_path / 'nowhere')], images, tmp_path / 'out')
    with pytest.raises(UsageError, match='seg'):
        Options(seg='both')
    assert not (tmp_path / 'out').exists()


def test_a_full_disk_is_one_line_and_what_is_done_stays(run, images, tmp_path, monkeypatch):
    from pneumojax.drawing import overlay

    write = overlay.write_png

    def full(path, picture):
        if 'image5' in str(path):
            raise OSError(28, 'No space left on device', str(path))
        write(path, picture)

    monkeypatch.setattr(overlay, 'write_png', full)
    with pytest.raises(UsageError, match=r'No space left on device; .*to continue'):
        predict([run], images, tmp_path / 'out')
    assert [row['file'] for row in results(tmp_path / 'out')] == [f'image{i}.dcm' for i in range(5)]
