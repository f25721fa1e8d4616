"""The same seed twice, and with other numbers of reading workers: the same bits."""

import pytest

from pneumojax.runs.run import Run
from pneumojax.training import loop
from tests.same_bits import assert_same_bits
from tests.training.test_loop import final_items


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_whoever_reads(config, tmp_path):
    found = []
    for i, workers in enumerate([0, 0, 1, 2]):
        config.data.workers = workers
        run = Run(tmp_path / str(i))
        loop.train(config, run)
        found.append(final_items(run, config))
    for other in found[1:]:
        assert_same_bits(other, found[0])


def test_another_seed_gives_others(config, tmp_path):
    """Or the test above would prove nothing."""
    config.num_epochs, config.averaging.start = 1, 0
    last = []
    for seed in (0, 1):
        config.seed = seed
        run = Run(tmp_path / str(seed))
        loop.train(config, run)
        last.append(run.metrics()[-1]['loss'])
    assert last[0] != last[1]
