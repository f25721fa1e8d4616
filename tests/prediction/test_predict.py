"""Prediction of folders: the pixels, the tables, averages of runs, continuing."""

import csv
import functools
import os

import cv2
import jax
import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumojax.data import geometry, rle
from pneumojax.data.files import dicom
from pneumojax.models import build
from pneumojax.prediction import streaming
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.folder import LOCK
from pneumojax.prediction.journal import Journal
from pneumojax.prediction.outputs import FILES
from pneumojax.runs.run import Run
from pneumojax.system import parallel
from tests.prediction.predictions import contents, predict, results
from tests.tiny_runs import tiny_config, write_run


def test_every_file_is_one_that_the_reference_names(output):
    found = {p.name + '/' * p.is_dir() for p in output.iterdir()}
    objects = {'sr/', 'secondary_capture/', 'gsps/'}  # not asked for: see test_predict_objects.py
    assert found == set(FILES) - {LOCK} - objects  # nobody predicts now


@functools.cache
def network(path):
    run = Run(path)
    config = run.config()
    model = build.make_model(config)
    variables = run.checkpoints.load_variables(7, build.variable_shapes(config), averaged=False)
    return jax.jit(lambda x: jax.nn.sigmoid(model.apply(variables, x, train=False))), config


def direct_probability(run, image, aspect=1.0):
    """The definition, one image and one view at a time, without the code under test."""
    apply, config = network(run.path)
    size = config.image_size
    square = geometry.fit_image(image, size, aspect).astype(np.float32) / 255
    views = [np.asarray(apply(square[None, :, ::f, None]))[0, :, ::f, 0] for f in (1, -1)]
    fit = geometry.fit_of(image.shape, size, aspect)
    inside = np.mean(views, axis=0)[fit.top :, fit.left :][: fit.height, : fit.width]
    return cv2.resize(inside, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def test_masks_are_what_the_network_and_the_rule_say(run, images, output):
    marked = 0
    for row in results(output):
        image = dicom.to_uint8(dicom.read(images / row['file']))
        probability = direct_probability(run, image, 2.0 if row['file'] == 'image1.dcm' else 1.0)
        enough = (probability >= 0.6).sum() * 1024 * 1024 >= 300 * image.size
        expected = (probability >= 0.55) & enough
        mask = np.asarray(Image.open(output / 'masks' / f'{row["ImageId"]}.png'))
        assert set(np.unique(mask)) <= {0, 255}
        # Two ways of computing may differ in the last bit, at the threshold.
        sure = np.abs(probability - 0.55) > 1e-4
        np.testing.assert_array_equal((mask > 0)[sure], expected[sure])
        assert int(row['area_px']) == (mask > 0).sum()
        marked += mask.any()
    assert marked > 0


def test_every_output_tells_the_same(images, output):
    with open(output / 'submission.csv', encoding='utf-8') as file:
        submitted = {row['ImageId']: row['EncodedPixels'] for row in csv.DictReader(file)}
    rows = results(output)
    assert [row['file'] for row in rows] == sorted(os.listdir(images))
    assert [row['ImageId'] for row in rows] == list(submitted)
    for row in rows:
        name, source = row['ImageId'], pydicom.dcmread(images / row['file'])
        mask = np.asarray(Image.open(output / f'masks/{name}.png')) // 255
        assert mask.shape == (source.Rows, source.Columns)
        np.testing.assert_array_equal(rle.decode(submitted[name], mask.shape), mask)
        segmentation = pydicom.dcmread(output / f'seg/{name}.dcm')
        np.testing.assert_array_equal(segmentation.pixel_array, mask)
        for folder in ('overlays', 'heatmaps'):
            assert Image.open(output / f'{folder}/{name}.png').size == mask.shape[::-1]
        height, width = map(float, source.PixelSpacing)
        assert float(row['area_mm2']) == pytest.approx(mask.sum() * height * width, abs=0.06)
        assert 0 <= float(row['probability']) <= 1
        assert (row['status'], row['reason']) == ('ok', '')


def test_a_single_file(run, images, output, tmp_path, capfd):
    assert predict([run], images / 'image3.dcm', tmp_path / 'out') == 0
    log = capfd.readouterr().err
    assert '\npredict: 1 of 1 files (100 %), ' in '\n' + log
    assert not set(log) & {'\r', '\x1b'}
    whole = contents(output)
    single = contents(tmp_path / 'out')
    assert len(single) == 8
    for name in ('masks/image3.png', 'overlays/image3.png', 'seg/image3.dcm'):
        assert single[name] == whole[name]
    assert len(results(tmp_path / 'out')) == 1


def test_runs_are_averaged_as_probabilities(run, images, tmp_path):
    other = write_run(tmp_path / 'other', size=64, seed=1, flips=())
    third = write_run(tmp_path / 'third', size=32, seed=2)
    square = {size: np.full((1, size, size), 90, np.uint8) for size in (32, 64)}
    shape = (50, 80)

    def whole(runs):
        ensemble = Ensemble(runs, 'jax')
        batch = {size: square[size] for size in ensemble.sizes}
        squares = {size: s[0] for size, s in ensemble.predict(batch).items()}
        return ensemble.unfit(squares, shape, 1.0)

    single = [whole([one]) for one in (run, other, third)]
    np.testing.assert_allclose(whole([run, other, third]), np.mean(single, axis=0), atol=1e-6)
    assert Ensemble([run, other], 'jax').rule.top == 0.6
    assert np.abs(single[0] - single[1]).max() > 0.01


def test_interrupted_and_continued_equals_uninterrupted(run, images, output, tmp_path, monkeypatch):
    folder, add, load = tmp_path / 'out', Journal.add, streaming.load
    done, read = [], []

    def stop_after_four(self, row):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(row['file'])
        add(self, row)

    monkeypatch.setattr(Journal, 'add', stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        predict([run], images, folder, heatmap=True)
    assert [row['file'] for row in results(folder)] == done
    assert not (folder / 'submission.csv').exists()

    with open(folder / '.journal.jsonl', 'ab') as file:
        file.write(b'{"file": "image4.d')  # the crash came in the middle of a line
    (folder / f'masks/{done[1][:-4]}.png').unlink()
    monkeypatch.setattr(Journal, 'add', add)
    monkeypatch.setattr(
        streaming, 'load', lambda item, **kw: read.append(item.file) or load(item, **kw)
    )
    assert predict([run], images, folder, heatmap=True) == 0
    assert sorted(read) == sorted({*os.listdir(images)} - {*done} | {done[1]})
    assert contents(folder) == contents(output)

    read.clear()
    assert predict([run], images, folder, heatmap=True) == 0
    assert read == []
    assert contents(folder) == contents(output)


def test_no_more_is_read_than_waits_for_the_device(run):
    """300 images, each counted while it is held: reading stays near what was taken."""
    ensemble = Ensemble([run], 'jax')
    read, most = [], 0

    def fake_load(item, sizes, accept):
        read.append(item)
        radiograph = streaming.inputs.Radiograph(np.zeros((9, 9), np.uint8), None, 1.0, (), None)
        return streaming.Loaded(item, radiograph, {32: np.zeros((32, 32), np.uint8)}, {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, 'load', fake_load)
        rows = streaming.predicted_rows(ensemble, range(300), lambda one, _: {'n': one.item})
        order = []
        for row in rows:
            order.append(row['n'])
            most = max(most, len(read) - len(order))
    assert order == list(range(300))
    workers = min(16, parallel.cores())
    assert most <= 2 * ensemble.batch_size + 2 * workers + 1


def test_the_tiny_config_is_a_valid_one():
    from pneumojax import config as config_lib

    config_lib.check(tiny_config())
