"""A data set that stays on the device: the same bits as streaming it, and refused where too big."""

import jax
import numpy as np
import pytest

from pneumojax.data import dataset as dataset_lib
from pneumojax.data import pipeline
from pneumojax.errors import UsageError
from pneumojax.system.devices import Devices
from pneumojax.training import loop, placement


@pytest.mark.parametrize('size', [32, 27])  # 729 pixels: the last byte of a mask is not full
def test_the_look_up_gives_the_streamed_batches(config, size):
    config.image_size = size
    dataset = dataset_lib.load(config)
    plan = loop.make_plan(config, dataset)
    devices = Devices()
    resident = placement.OnDevice(devices, dataset.records)
    streamed = placement.FromHost(devices, dataset.records)
    assert resident.records is None

    def batches(source):
        yield from pipeline.train_batches(source.records, dataset.train, plan, start_step=2)
        yield from pipeline.evaluation_batches(source.records, dataset.validation, 8)

    step = devices.compile(lambda stored, batch: batch, 'a step')
    pairs = list(zip(batches(resident), batches(streamed), strict=True))
    assert len(pairs) > 3
    seen = []
    for indices, whole in pairs:
        assert 'image' not in indices
        there, expected = resident.place(indices), streamed.place(whole)
        assert there.keys() == expected.keys()
        with jax.transfer_guard('disallow'):  # nothing is left to be copied when a step begins
            jax.block_until_ready(step(there, expected))
        for key in expected:
            assert there[key].dtype == whole[key].dtype
            np.testing.assert_array_equal(there[key], whole[key])
        seen.append(whole['mask'].max())
    assert max(seen) == 1


def test_images_that_do_not_fit_are_refused(config, monkeypatch):
    records = dataset_lib.load(config).records
    monkeypatch.setattr(Devices, 'memory', lambda self: 2 * records.num_bytes - 2)
    with pytest.raises(UsageError, match=r'data\.on_device: 40 images at 32 px'):
        placement.OnDevice(Devices(), records)
    monkeypatch.setattr(Devices, 'memory', lambda self: 2 * records.num_bytes)
    placement.OnDevice(Devices(), records)


def test_the_look_up_gathers_nothing():
    """XLA on a TPU copies all of a gather's operand, here the whole data set, to a new layout."""
    stored = jax.ShapeDtypeStruct((40, 32 * 32 + 128), np.uint8)
    batch = {'example': jax.ShapeDtypeStruct((8,), np.int32)}
    text = str(jax.make_jaxpr(placement.make_look_up(32))(stored, batch))
    assert 'dynamic_slice' in text
    assert 'gather' not in text
