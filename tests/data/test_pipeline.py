"""Batches from the cache, against the plan's order read by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pneumojax.data import pipeline, sampling
from pneumojax.data.cache import records
from pneumojax.data.datasets import siim
from pneumojax.data.phantoms import phantom
from tests.waiting import PATIENCE

SIZE = 16


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pipeline')
    phantom.write_dataset(folder / 'data', num_images=11, size=32, seed=1, positive_share=0.5)
    return records.prepare(folder / 'cache', siim.find(folder / 'data').examples, SIZE)


TRAIN = np.array([10, 1, 2, 4, 5, 7, 8, 9])  # records 0, 3 and 6 are held out


def make_plan(batch_size=4):
    return sampling.make_plan(np.arange(8) % 2 == 0, num_epochs=3, batch_size=batch_size, seed=7)


def batches(cache, plan, **options):
    return list(pipeline.train_batches(cache, TRAIN, plan, **options))


def assert_same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key])


def naive(cache, plan):
    """What the batches are by definition."""
    result = []
    for step in range(plan.total_steps):
        rows = TRAIN[plan.order[step * plan.batch_size : (step + 1) * plan.batch_size]]
        pairs = [cache[i] for i in rows]
        result.append({
            'image': np.stack([image for image, _ in pairs]),
            'mask': np.stack([mask for _, mask in pairs]),
            'example': rows.astype(np.int32),
        })  # fmt: skip
    return result


def test_the_images_differ(cache):
    """Or the tests below would prove nothing."""
    assert len({cache[i][0].tobytes() for i in range(len(cache))}) == 11


@pytest.mark.parametrize('batch_size', [1, 3, 4, 10])
def test_batches_follow_the_plan(cache, batch_size):
    plan = make_plan(batch_size)
    got = batches(cache, plan)
    assert_same(got, naive(cache, plan))
    assert not {0, 3, 6} & set(np.concatenate([b['example'] for b in got]))
    assert got[0]['image'].dtype == got[0]['mask'].dtype == np.uint8


@pytest.mark.parametrize('start', [0, 1, 3, 5, 6])
def test_a_later_start_is_the_tail(cache, start):
    plan = make_plan()
    assert plan.total_steps == 6
    assert_same(batches(cache, plan, start_step=start), batches(cache, plan)[start:])


@pytest.mark.parametrize('processes', [2, 4])
def test_the_shares_of_processes_make_up_the_batch(cache, processes):
    plan = make_plan()
    shares = [
        batches(cache, plan, start_step=1, share=pipeline.Share(i, processes))
        for i in range(processes)
    ]
    whole = [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    assert_same(whole, batches(cache, plan, start_step=1))


@pytest.mark.slow
def test_reading_processes_change_nothing(cache):
    plan = make_plan()
    expected = batches(cache, plan)
    assert_same(batches(cache, plan, workers=2), expected)
    assert_same(batches(cache, plan, workers=2, start_step=2), expected[2:])


@pytest.mark.slow
def test_reading_processes_need_no_parsed_flags(cache):
    """In a notebook nobody has parsed absl's flags."""
    program = (
        'import sys, numpy as np\n'
        'from absl import flags\n'
        'from pneumojax.data import pipeline, sampling\n'
        'from pneumojax.data.cache import records\n'
        'if __name__ == "__main__":\n'
        '    assert not flags.FLAGS.is_parsed()\n'
        '    plan = sampling.make_plan(np.ones(8, bool), num_epochs=1, batch_size=4, seed=0)\n'
        '    cache = records.Records(sys.argv[1])\n'
        '    found = list(pipeline.train_batches(cache, np.arange(8), plan, workers=1))\n'
        '    print(sorted(int(i) for b in found for i in b["example"]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, str(cache.folder)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout.strip() == str(list(range(8))), done.stderr


@pytest.mark.parametrize(('count', 'batch_size'), [(1, 4), (4, 4), (7, 4), (11, 3), (5, 11)])
def test_evaluation_meets_every_image_once_in_order(cache, count, batch_size):
    wanted = np.random.default_rng(count).permutation(11)[:count]
    found = []
    for batch in pipeline.evaluation_batches(cache, wanted, batch_size):
        assert batch['image'].shape == batch['mask'].shape == (batch_size, SIZE, SIZE)
        for i, valid in enumerate(batch['valid']):
            image, mask = cache[batch['example'][i]]  # padding holds real images too
            np.testing.assert_array_equal(batch['image'][i], image)
            np.testing.assert_array_equal(batch['mask'][i], mask)
            if valid:
                found.append(int(batch['example'][i]))
    assert found == wanted.tolist()
    assert batch['valid'].any()


def test_evaluating_nothing_gives_no_batch(cache):
    assert list(pipeline.evaluation_batches(cache, [], 4)) == []
