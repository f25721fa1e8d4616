"""Prediction of folders: the pixels, the tables, continuing, and folders that are not to be had."""

import csv
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil

import cv2
import jax
import numpy as np
import pydicom
import pytest
from PIL import Image

from pneumojax.data import dicom, geometry, phantom, rle
from pneumojax.errors import UsageError
from pneumojax.inference import streaming
from pneumojax.inference.ensemble import Ensemble
from pneumojax.inference.predict import Options, predict
from pneumojax.models import build
from pneumojax.outputs.folder import FILES
from pneumojax.outputs.journal import Journal
from pneumojax.run import Run
from tests.inference.tiny_runs import tiny_config, write_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny', rule=(0.6, 300, 0.55))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Nine phantoms: JPEG, MONOCHROME1 and 12 bits; one of them wide, one with wide pixels."""
    root = tmp_path_factory.mktemp('images')
    phantom.write_dataset(root / 'set', num_images=9, size=96, seed=4, positive_share=0.4)
    for i, path in enumerate(sorted((root / 'set').rglob('*.dcm'))):
        dataset = pydicom.dcmread(path)
        if i < 2:
            dataset.decompress(generate_instance_uid=False)
            dataset.PixelData = dataset.pixel_array[:60].tobytes()
            dataset.Rows = 60
            dataset.PixelSpacing = [0.2, 0.2] if i == 0 else [0.3, 0.15]
        dataset.save_as(root / f'image{i}.dcm')
    shutil.rmtree(root / 'set')
    return root


@pytest.fixture(scope='module')
def output(run, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp('outputs') / 'whole'
    assert predict([run], images, folder, Options(heatmap=True)) == 0
    return folder


def test_every_file_is_one_that_the_reference_names(output):
    assert {p.name + '/' * p.is_dir() for p in output.iterdir()} == set(FILES)


def results(folder):
    with open(folder / 'results.csv', newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Checksums; of DICOM SEG, which holds the time of its making, instance and pixels."""

    def content(path):
        if path.suffix == '.dcm':
            dataset = pydicom.dcmread(path)
            return dataset.SOPInstanceUID.encode() + dataset.PixelData
        return path.read_bytes()

    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != '.journal.jsonl'
    }


@functools.cache
def network(path):
    run = Run(path)
    config = run.config()
    model = build.make_model(config)
    variables = run.load_variables(7, build.variable_shapes(config), averaged=False)
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


def test_a_single_file(run, images, output, tmp_path):
    assert predict([run], images / 'image3.dcm', tmp_path / 'out') == 0
    whole = contents(output)
    single = contents(tmp_path / 'out')
    assert len(single) == 7
    for name in ('masks/image3.png', 'overlays/image3.png', 'seg/image3.dcm'):
        assert single[name] == whole[name]
    assert len(results(tmp_path / 'out')) == 1


def test_runs_are_averaged_as_probabilities(run, images, tmp_path):
    other = write_run(tmp_path / 'other', size=64, seed=1, flips=())
    third = write_run(tmp_path / 'third', size=32, seed=2)
    square = {size: np.full((1, size, size), 90, np.uint8) for size in (32, 64)}
    shape = (50, 80)

    def whole(runs):
        ensemble = Ensemble(runs)
        batch = {size: square[size] for size in ensemble.sizes}
        squares = {size: s[0] for size, s in ensemble.predict(batch).items()}
        return ensemble.unfit(squares, shape, 1.0)

    single = [whole([one]) for one in (run, other, third)]
    np.testing.assert_allclose(whole([run, other, third]), np.mean(single, axis=0), atol=1e-6)
    assert Ensemble([run, other]).rule.top == 0.6
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
        predict([run], images, folder, Options(heatmap=True))
    assert [row['file'] for row in results(folder)] == done
    assert not (folder / 'submission.csv').exists()

    with open(folder / '.journal.jsonl', 'ab') as file:
        file.write(b'{"file": "image4.d')  # the crash came in the middle of a line
    (folder / f'masks/{done[1][:-4]}.png').unlink()
    monkeypatch.setattr(Journal, 'add', add)
    monkeypatch.setattr(
        streaming, 'load', lambda item, sizes: read.append(item.file) or load(item, sizes)
    )
    assert predict([run], images, folder, Options(heatmap=True)) == 0
    assert sorted(read) == sorted({*os.listdir(images)} - {*done} | {done[1]})
    assert contents(folder) == contents(output)

    read.clear()
    assert predict([run], images, folder, Options(heatmap=True)) == 0
    assert read == []
    assert contents(folder) == contents(output)


def test_a_file_that_was_mended_is_read_again(run, images, tmp_path):
    source, folder = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    whole = (images / 'image2.dcm').read_bytes()
    (source / 'a.dcm').write_bytes(whole[:-300])
    (source / 'b.dcm').write_bytes(whole)
    assert predict([run], source, folder) == 3
    assert [row['status'] for row in results(folder)] == ['error', 'ok']
    assert (folder / 'submission.csv').read_text().splitlines()[1].startswith('b,')
    (source / 'a.dcm').write_bytes(whole)
    assert predict([run], source, folder) == 0
    rows = results(folder)
    assert [row['status'] for row in rows] == ['ok', 'ok']
    assert 'same SOPInstanceUID as b.dcm' in rows[0]['reason']


def test_another_prediction_is_refused(run, images, output, tmp_path):
    before = contents(output)
    other = write_run(tmp_path / 'other', seed=3)
    for runs, source, options in (
        ([other], images, Options(heatmap=True)),
        ([run, other], images, Options(heatmap=True)),
        ([run], images / 'image1.dcm', Options(heatmap=True)),
        ([run], images, Options(seg='fractional')),
    ):
        with pytest.raises(UsageError, match='another prediction'):
            predict(runs, source, output, options)
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
    from pneumojax.outputs import overlay

    write = overlay.write_png

    def full(path, picture):
        if 'image5' in str(path):
            raise OSError(28, 'No space left on device', str(path))
        write(path, picture)

    monkeypatch.setattr(overlay, 'write_png', full)
    with pytest.raises(UsageError, match=r'No space left on device; .*continues'):
        predict([run], images, tmp_path / 'out')
    assert [row['file'] for row in results(tmp_path / 'out')] == [f'image{i}.dcm' for i in range(5)]


def test_no_more_is_read_than_waits_for_the_device(run):
    """300 images, each counted while it is held: reading stays near what was taken."""
    ensemble = Ensemble([run])
    read, most = [], 0

    def fake_load(item, sizes):
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
    workers = min(16, os.cpu_count() or 1)
    assert most <= 2 * ensemble.batch_size + 2 * workers + 1


def test_names_of_patients_stay_out(run, images, tmp_path, capfd):
    source = tmp_path / 'in'
    source.mkdir()
    name = 'Zzyzx^<script>alert(1)</script>'
    dataset = pydicom.dcmread(images / 'image2.dcm')
    dataset.PatientName, dataset.PatientID = name, 'ID-Zzyzx'
    del dataset.PixelSpacing, dataset.ImagerPixelSpacing
    dataset.save_as(source / 'a.dcm')
    data = (source / 'a.dcm').read_bytes()
    (source / 'b.dcm').write_bytes(data[:-400])
    assert predict([run], source, tmp_path / 'out') == 3
    for path in (tmp_path / 'out').rglob('*'):
        if path.is_file() and path.parent.name != 'seg':
            assert b'zzyzx' not in path.read_bytes().lower(), path
    assert 'zzyzx' not in ''.join(capfd.readouterr()).lower()
    assert results(tmp_path / 'out')[0]['area_mm2'] == ''

    predict([run], source, tmp_path / 'named', Options(show_names=True))
    page = (tmp_path / 'named' / 'report.html').read_text()
    assert 'Zzyzx^&lt;script&gt;alert(1)&lt;/script&gt;' in page
    assert page.count('<script') == 1


def test_hostile_names_stay_inside(run, images, tmp_path):
    source, folder = tmp_path / 'deep' / 'in', tmp_path / 'deep' / 'out'
    (source / 'sub').mkdir(parents=True)
    evil = pydicom.dcmread(images / 'image2.dcm')
    names = [
        '..dcm',
        '-rf.dcm',
        '<img src=x onerror=alert(1)>.dcm',
        'a\nb.dcm',
        'Ä ö.dcm',
        '=1.dcm',
    ]
    for name in [*names, 'sub/-rf.dcm', os.fsdecode(b'\xff\xfe.dcm')]:
        evil.save_as(source / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, 'writing_validation_mode', pydicom.config.IGNORE)
        evil.SOPInstanceUID = '../../../evil'
        evil.save_as(source / 'uid.dcm')
    assert predict([run], source, folder) == 0
    rows = results(folder)
    assert len(rows) == 9
    assert len({row['ImageId'] for row in rows}) == 9
    by_file = {row['file']: row for row in rows}
    assert 'SOPInstanceUID is malformed' in by_file['uid.dcm']['reason']
    assert '\\xff\\xfe.dcm' in by_file
    assert sum('same SOPInstanceUID as' in row['reason'] for row in rows) == 7
    for row in rows:
        assert re.fullmatch(r'[\w.-]+', row['ImageId'])
        assert (folder / 'masks' / f'{row["ImageId"]}.png').is_file()
        assert (folder / 'overlays' / f'{row["ImageId"]}.png').is_file()
    assert sorted(path.name for path in (tmp_path / 'deep').iterdir()) == ['in', 'out']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['deep']
    page = (folder / 'report.html').read_text(encoding='utf-8')
    assert '<img src=x' not in page


def test_pictures_and_other_files_beside_dicom(run, images, tmp_path):
    source, folder = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    grey = dicom.to_uint8(dicom.read(images / 'image2.dcm'))
    cv2.imwrite(str(source / 'a.png'), grey)
    shutil.copy(images / 'image2.dcm', source / 'a.dcm')
    (source / 'notes.txt').write_text('hello')
    assert predict([run], source, folder, Options(seg='fractional')) == 0
    first, second, third = results(folder)
    assert (first['ImageId'], second['ImageId'], third['status']) == ('a', 'a-2', 'skipped')
    assert first['probability'] == second['probability']
    assert 'no SEG' in second['reason']
    assert os.listdir(folder / 'seg') == ['a.dcm']
    np.testing.assert_array_equal(
        cv2.imread(str(folder / 'masks/a.png')), cv2.imread(str(folder / 'masks/a-2.png'))
    )


@pytest.mark.slow
def test_every_file_that_pydicom_brings_gets_a_row(run, tmp_path):
    import pydicom.data

    source = pathlib.Path(pydicom.data.__file__).parent
    assert predict([run], source, tmp_path / 'out') == 3
    rows = results(tmp_path / 'out')
    files = [str(p.relative_to(source)) for p in source.rglob('*') if p.is_file()]
    assert sorted(row['file'] for row in rows) == sorted(files)
    assert len({row['ImageId'] for row in rows}) == len(rows)
    for row in rows:
        assert row['status'] in ('ok', 'skipped', 'error')
        assert (row['status'] == 'ok') == (row['probability'] != '')
        assert row['status'] == 'ok' or row['reason']
        if row['status'] == 'ok':
            header = pydicom.dcmread(source / row['file'], stop_before_pixels=True)
            mask = cv2.imread(str(tmp_path / f'out/masks/{row["ImageId"]}.png'), 0)
            assert mask.shape == (header.Rows, header.Columns)


def test_the_tiny_config_is_a_valid_one():
    from pneumojax import config as config_lib

    config_lib.check(tiny_config())
