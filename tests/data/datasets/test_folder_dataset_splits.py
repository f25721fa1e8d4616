"""Your own images, from a table's split to the prediction of others' masks."""

import pathlib

import cv2
import numpy as np
import pytest

from pneumojax import config as config_lib
from pneumojax.data import dataset
from pneumojax.errors import UsageError
from pneumojax.experiments import stages
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import Run
from tests.conftest import tiny_config
from tests.data.datasets.folder_images import SHAPE, drawing, ids, table, write


@pytest.fixture
def config(tmp_path):
    """Of 16 drawings of 8 patients, those with an odd number negative and without a mask file."""
    root = tmp_path / 'images'
    lines = ['ImageId,PatientId,Pneumothorax,split']
    for i in range(16):
        image, mask = drawing(i, positive=i % 2 == 0)
        write(root / f'film{i:02d}.png', image)
        if i % 2 == 0:
            write(root / 'masks' / f'film{i:02d}.png', mask * np.uint8(255))
        side = 'validation' if i >= 10 else 'train'
        lines.append(f'film{i:02d},p{i // 2},{1 - i % 2},{side}')
    table(root, '\n'.join(lines))
    return tiny_config(root, tmp_path / 'cache')


def test_the_split_of_the_table_is_kept(config):
    data = dataset.load(config)
    names = [f'film{i:02d}' for i in range(16)]
    assert data.split_ids() == {'train': names[:10], 'validation': names[10:]}
    assert data.positive.tolist() == [True, False] * 8
    assert data.records.shapes == [SHAPE] * 16
    config.data.fold = 1
    with pytest.raises(UsageError, match='a column split, which makes one split only'):
        dataset.load(config)


def test_the_folds_of_the_table_are_kept(config):
    lines = [f'film{i:02d},p{i // 2},{i // 2 % 4}' for i in range(16)]
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text('\n'.join(['ImageId,PatientId,fold', *lines]))
    for fold in range(4):
        config.data.fold = fold
        held_out = dataset.load(config).split_ids()['validation']
        assert held_out == [f'film{i:02d}' for i in range(0, 16, 2) if i // 2 % 4 == fold]


def test_a_split_that_parts_a_patient_is_refused(config):
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text(path.read_text().replace('film09,p4,0,train', 'film09,p4,0,validation'))
    with pytest.raises(UsageError, match=r'images of 1 patients on both .* film08 .* film09') as e:
        dataset.load(config)
    assert 'p4' not in str(e.value)


def test_a_split_without_one_of_its_sides_is_refused(config):
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text(path.read_text().replace(',validation', ',train'))
    with pytest.raises(UsageError, match=r'data\.table leaves 16 images, none of them to validate'):
        dataset.load(config)


def test_images_that_the_table_sets_aside_are_left_out(config, messages):
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text(path.read_text().replace(',train', ',TEST', 2))
    assert 'film00' not in ids(dataset.find(config.data))
    assert "2 images are left out because the table's column split is test" in ' '.join(messages)


def test_kaggles_csv_comes_first_unless_the_configuration_says_otherwise(config):
    root = pathlib.Path(config.data.root)
    (root / 'train-rle.csv').write_text('ImageId,EncodedPixels\nx,-1\n')
    with pytest.raises(UsageError, match=r'no \.dcm file'):
        dataset.find(config.data)
    config.data.masks = str(root / 'masks')
    assert len(dataset.find(config.data)) == 16


@pytest.mark.slow
def test_from_ones_own_images_to_masks_of_others(config, tmp_path):
    """prepare, train, evaluate and predict, on images that are not square and no DICOM files."""
    workdir = tmp_path / 'run'
    config_lib.check(config)
    stages.prepare(config, workdir)
    stages.train(config, workdir)
    stages.evaluate(config, workdir)
    report = Run(workdir).read_json('evaluation.json')
    assert (report['n'], report['n_positive']) == (6, 3)
    rows = (workdir / 'per_image.csv').read_text().splitlines()[1:]
    true_px = {row.split(',')[0]: int(row.split(',')[2]) for row in rows}
    assert true_px == {
        f'film{i}': int(drawing(i, i % 2 == 0)[1].sum()) for i in range(10, 16)
    }  # counted at the original size
    options = Options(seg='none', overlays=False, report=False, runtime='jax')
    source = tmp_path / 'new'
    write(source / 'new.png', drawing(99)[0])
    assert predict([Run(workdir)], str(source), str(tmp_path / 'out'), options) == 0
    assert cv2.imread(str(tmp_path / 'out' / 'masks' / 'new.png'), 0).shape == SHAPE
