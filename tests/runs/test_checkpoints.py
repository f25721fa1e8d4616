"""Which folders are checkpoints, and what tells the weights of one from those of another."""

import os

import numpy as np
import pytest

from pneumojax.runs import checkpoints
from pneumojax.runs.run import Run


def save(run, step, value=0.0, keep=3):
    names = [prefix + name for prefix in ('', 'average_') for name in checkpoints.VARIABLES]
    items = {name: {'w': np.full(3, value + i)} for i, name in enumerate(names)}
    with checkpoints.Saver(run.checkpoints, keep) as saver:
        saver.save(step, items)


@pytest.mark.parametrize('target', ['66', 'nothing'])
def test_a_link_to_another_step_is_no_step_and_costs_none(tmp_path, target):
    """Orbax itself would keep the newest by number, the link, and delete what it leads to."""
    run = Run(tmp_path)
    save(run, 66)
    os.symlink(target, run / 'checkpoints' / '77')
    assert run.checkpoints.steps() == [66]
    run.checkpoints.set_incomplete_aside()
    assert os.path.islink(run / 'damaged' / '77')
    save(run, 70, keep=2)
    assert run.checkpoints.steps() == [66, 70]


def test_other_spellings_of_a_number_are_no_steps(tmp_path):
    run = Run(tmp_path)
    save(run, 66)
    for name in ('077', '７７'):
        os.rename(run / 'checkpoints' / '66', run / 'checkpoints' / name)
        assert run.checkpoints.steps() == []
        os.rename(run / 'checkpoints' / name, run / 'checkpoints' / '66')


def test_a_checkpoint_that_lies_elsewhere_under_its_number_is_one(tmp_path):
    run = Run(tmp_path / 'run')
    save(run, 66)
    (tmp_path / 'archive').mkdir()
    os.rename(run / 'checkpoints' / '66', tmp_path / 'archive' / '66')
    os.symlink(tmp_path / 'archive' / '66', run / 'checkpoints' / '66')
    assert run.checkpoints.steps() == [66]


def test_the_digest_is_that_of_the_weights(tmp_path):
    one, same, other = (Run(tmp_path / name) for name in ('one', 'same', 'other'))
    for run, value in ((one, 0.0), (same, 0.0), (other, 1.0)):
        save(run, 5, value)
    digests = [
        run.checkpoints.weights_digest(5, averaged=averaged)
        for run in (one, same, other) for averaged in (False, True)
    ]  # fmt: skip
    assert digests[0:2] == digests[2:4]
    assert len(set(digests)) == 4


def test_converted_weights_have_a_digest_too(tmp_path):
    digests = set()
    for name in ('one', 'two'):
        run = Run(tmp_path / name)
        with run.checkpoints.writer(1) as writer:
            writer.save_checkpointables(
                1, {'params': {'w': np.zeros(2)}, 'batch_stats': {'m': np.ones(2)}}
            )
        digests.add(run.checkpoints.weights_digest(1, averaged=False))
    assert len(digests) == 2  # nothing says that they are the same
    (run / 'checkpoints/1/_CHECKPOINT_METADATA').write_text('[')
    with pytest.raises(checkpoints.Damaged, match='checkpoints/1 cannot be read'):
        run.checkpoints.weights_digest(1, averaged=False)
