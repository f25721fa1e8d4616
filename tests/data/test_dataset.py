"""From a configuration to a split data set."""

import dataclasses

import numpy as np
import pytest

from configs import base
from pneumojax.data import dataset
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import siim
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('dataset') / 'phantoms'
    return phantom.write_dataset(root, num_images=24, size=32, seed=2, positive_share=0.4)


@pytest.fixture
def config(root, tmp_path):
    config = base.get_config()
    config.image_size = 16
    config.data.root = str(root)
    config.data.cache = str(tmp_path / 'cache')
    config.data.num_folds = 3
    return config


def owners(data, indices):
    return {data.examples[i].patient_id for i in indices}


def test_every_image_is_on_one_side_and_every_patient_too(config):
    held_out = []
    for fold in range(3):
        config.data.fold = fold
        data = dataset.load(config)
        both = np.concatenate([data.train, data.validation])
        assert sorted(both) == list(range(24))
        assert not owners(data, data.train) & owners(data, data.validation)
        held_out += data.validation.tolist()
        assert data.split_ids() == {
            'train': [data.examples[i].image_id for i in data.train],
            'validation': [data.examples[i].image_id for i in data.validation],
        }
    assert sorted(held_out) == list(range(24))


def test_index_i_means_the_same_image_everywhere(config):
    data = dataset.load(config)
    assert data.records.image_ids == [e.image_id for e in data.examples]
    assert data.positive.sum() == round(0.4 * 24)
    for i, positive in enumerate(data.positive):
        assert example_lib.load(data.examples[i])[1].any() == positive


def test_patients_beside_the_images_are_found(config, root):
    data = dataset.load(config)
    stated = dict(line.split(',') for line in (root / 'patients.csv').read_text().split()[1:])
    assert {e.image_id: e.patient_id for e in data.examples} == stated
    assert len(set(stated.values())) < 24  # some have several images


def test_a_named_file_of_patients_comes_first(config, root, tmp_path):
    ids = [e.image_id for e in siim.find(root).examples]
    lines = [f'{name},{"even" if i % 2 else "odd"}' for i, name in enumerate(ids)]
    (tmp_path / 'other.csv').write_text('\n'.join(['ImageId,PatientId', *lines]))
    config.data.patients = str(tmp_path / 'other.csv')
    config.data.num_folds = 2
    data = dataset.load(config)
    assert owners(data, data.train) | owners(data, data.validation) == {'odd', 'even'}
    assert len(data.train) == len(data.validation) == 12


def test_a_subset_is_a_seeded_draw_in_the_old_order(config):
    everyone = [e.image_id for e in dataset.load(config).examples]
    config.data.num_examples = 10
    subset = [e.image_id for e in dataset.load(config).examples]
    assert subset == [name for name in everyone if name in subset]
    assert len(set(subset)) == 10
    assert [e.image_id for e in dataset.load(config).examples] == subset
    config.data.split_seed = 1
    assert [e.image_id for e in dataset.load(config).examples] != subset
    config.data.num_examples = 1000
    assert [e.image_id for e in dataset.load(config).examples] == everyone


def test_a_larger_subset_holds_a_smaller_one(config):
    found = []
    for count in (8, 12):
        config.data.num_examples = count
        found.append({e.image_id for e in dataset.load(config).examples})
    assert found[0] < found[1]


def test_the_order_of_training_does_not_touch_the_split(config):
    before = dataset.load(config).split_ids()
    config.seed = 99
    assert dataset.load(config).split_ids() == before
    splits = set()
    for seed in range(8):  # with so few patients some seeds agree
        config.data.split_seed = seed
        splits.add(tuple(dataset.load(config).validation))
    assert len(splits) > 2


def test_phantoms_are_drawn_when_asked_for(config, tmp_path):
    config.data.root = str(tmp_path / 'new')
    config.data.phantoms.num_images = 6
    config.data.phantoms.size = 32
    config.data.phantoms.positive_share = 0.5
    data = dataset.load(config)
    assert len(data.examples) == 6
    assert data.positive.sum() == 3
    assert data.records.shapes == [(32, 32)] * 6


def test_without_data_the_demo_is_offered(config, tmp_path):
    config.data.root = str(tmp_path / 'nowhere')
    with pytest.raises(UsageError, match=r'nowhere.*configs/demo\.py'):
        dataset.load(config)
    assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(('key', 'value'), [('num_folds', 25), ('num_examples', 1), ('fold', 3)])
def test_a_split_that_cannot_be_made_names_the_key(config, tmp_path, key, value):
    config.data[key] = value
    with pytest.raises(UsageError, match=r'data\.(num_folds|fold)'):
        dataset.load(config)
    assert not (tmp_path / 'cache').exists()


def with_positives(examples, positive):
    """The same examples, but only these have a mask."""
    return tuple(
        dataclasses.replace(e, rles=('1 1',) if i in positive else (), patient_id=str(i))
        for i, e in enumerate(examples)
    )


@pytest.mark.parametrize('where', ['nowhere', 'train', 'validation', 'both'])
def test_a_side_without_a_positive_image_is_said(config, monkeypatch, caplog, where):
    sides = ['train', 'validation'] * 12
    chosen = {
        'nowhere': [], 'train': [0, 2], 'validation': [1, 3], 'both': [0, 1],
    }[where]  # fmt: skip
    examples = tuple(
        dataclasses.replace(e, side=side)
        for e, side in zip(with_positives(dataset.examples(config), chosen), sides, strict=True)
    )
    monkeypatch.setattr(dataset, 'find', lambda data, *, unlabelled: examples)
    dataset.load(config)
    expected = {
        'nowhere': 'none of the 24 images has a pneumothorax',
        'train': 'none of the 12 held-out images has a pneumothorax',
        'validation': 'none of the 12 images to train on has a pneumothorax',
        'both': None,
    }[where]
    said = [r.getMessage() for r in caplog.records if 'none of the' in r.getMessage()]
    assert len(said) == (expected is not None)
    assert all(message.startswith(expected) for message in said)
