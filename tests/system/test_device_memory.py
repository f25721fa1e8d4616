"""Batches are halved when XLA says that memory ran out, and the results are those of whole ones."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax.errors import UsageError
from pneumojax.evaluation import scores
from pneumojax.runtimes.ensemble_member import of_run
from pneumojax.runtimes.jax_runtime import Jax
from pneumojax.system.device_memory import InFittingBatches
from pneumojax.system.devices import Devices
from tests.tiny_runs import write_run


def run_out_of_memory():
    """XLA's own error: an allocation that no computer can make."""
    jax.jit(lambda x: jnp.broadcast_to(x, (8, 1 << 44)))(np.float32(1))


def limited(compiled, most):
    """A compiled function, on a device whose memory is too small for more than `most` images."""

    def call(variables, sharded):
        if len(sharded) > most:
            run_out_of_memory()
        return compiled(variables, sharded)

    return call


@jax.jit
def times(variables, images):
    return variables * images.astype(jnp.float32)


def batched(function, size):
    return InFittingBatches(Devices(1), function, size)


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 3, 2), dtype=np.uint8)


@pytest.fixture
def messages(caplog):
    logger = logging.getLogger('pneumojax')
    caplog.set_level(logging.INFO, 'pneumojax')
    before, logger.propagate = logger.propagate, True
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate = before


@pytest.mark.parametrize('count', [1, 7, 16, 21])
@pytest.mark.parametrize(('most', 'left'), [(99, 16), (8, 8), (5, 4), (1, 1)])
def test_results_are_those_of_one_batch(count, most, left):
    given = images(count)
    predict = batched(limited(times, most), 16)
    np.testing.assert_array_equal(predict.start(2.0, given)(), 2 * given.astype(np.float32))
    assert predict.batch_size == left


def test_it_is_said_once_and_kept(messages):
    predict = batched(limited(times, 4), 8)
    first, second = (predict.start(2.0, images(8)) for _ in range(2))
    np.testing.assert_array_equal(first(), second())
    said = [text for text in messages() if 'memory' in text]
    assert len(said) == 1
    assert said[0].startswith('8 images at once do not fit')
    assert said[0].endswith('predicting 4 at a time')


def test_memory_that_runs_out_behind_the_host(monkeypatch):
    """Two batches of 8 are under way when the first one's result reports it."""
    predict, gather = batched(times, 8), Devices.gather

    def fails(self, tree):
        if len(tree) == 8:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to')
        return gather(self, tree)

    monkeypatch.setattr(Devices, 'gather', fails)
    under_way = [predict.start(2.0, images(8)), predict.start(3.0, images(6))]
    np.testing.assert_array_equal(under_way[0](), 2 * images(8).astype(np.float32))
    np.testing.assert_array_equal(under_way[1](), 3 * images(6).astype(np.float32))
    assert predict.batch_size == 4


def test_errors_that_remain():
    with pytest.raises(UsageError, match=r'too small for a single image.*RESOURCE_EXHAUSTED'):
        batched(limited(times, 0), 8).start(2.0, images(3))

    def broken(variables, images):
        raise jax.errors.JaxRuntimeError('INTERNAL: something else')

    predict = InFittingBatches(Devices(1), broken, 8)
    with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
        predict.start(2.0, images(3))
    assert predict.batch_size == 8


class FourDevices:
    """Stands for four devices: a part that they cannot share equally is an error."""

    total = 4

    def padded(self, size):
        return -(-size // 4) * 4

    def shard(self, batch):
        return batch.reshape(4, -1, *batch.shape[1:])

    def gather(self, result):
        return result.reshape(-1, *result.shape[2:])


def test_parts_stay_multiples_of_the_devices():
    sizes = []

    def function(variables, sharded):
        sizes.append(sharded.shape[0] * sharded.shape[1])
        if sizes[-1] > 4:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
        return sharded * variables

    predict = InFittingBatches(FourDevices(), function, 18)
    np.testing.assert_array_equal(predict.start(1, images(10))(), images(10))
    assert sizes == [20, 12, 8, 4, 4, 4]


@pytest.mark.slow
def test_prediction_and_evaluation_use_it(tmp_path, monkeypatch):
    """The runtime and the evaluation, with a network that fits two images at once."""
    run = write_run(tmp_path)
    squares = np.random.default_rng(1).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    expected = predicted_by_jax(run, squares)
    compile_ = Devices.compile
    monkeypatch.setattr(
        Devices, 'compile', lambda self, f, name: limited(compile_(self, f, name), 2)
    )
    np.testing.assert_allclose(predicted_by_jax(run, squares), expected, atol=1e-6)
    predictor = scores.Predictor(run.config(), ())
    assert isinstance(predictor.predict, InFittingBatches)
    assert predictor.batch_size == run.config().evaluation.batch_size


def predicted_by_jax(run, squares):
    runtime = Jax('float32')
    runtime.batch_size(len(squares))
    return runtime.network(of_run(run))(squares)()
