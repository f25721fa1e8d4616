"""The PyTorch peer trains what it says, and its run directory predicts what PyTorch predicts."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.models import build, tta
from pneumojax.runs.run import Run
from pneumojax.training import losses

torch = pytest.importorskip('torch', reason='trains in PyTorch')

from benchmarks import torch_augment, torch_peer, torch_unet  # noqa: E402 (they import torch)


@pytest.mark.slow
def test_a_peer_is_a_run_that_predicts_what_pytorch_does(config, tmp_path, monkeypatch):
    """Two epochs are averaged, statistics too; every network along the way is kept and compared."""
    states = []
    monkeypatch.setattr(
        torch_peer,
        'state',
        lambda net, state=torch_peer.state: states.append(state(net)) or states[-1],
    )
    run = Run(tmp_path / 'peer')
    torch_peer.train(config, run)
    assert config.num_epochs - config.averaging.start == 2
    assert len(states) == 3  # after the second and the third epoch, and the last
    step, shapes = run.checkpoints.latest_step(), build.variable_shapes(config)
    dataset = dataset_lib.load(config)
    images = np.stack([dataset.records[i][0] for i in dataset.validation[:4]])
    inputs = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    mean = {name: (states[0][name] + states[1][name]) / 2 for name in states[0]}
    for averaged, state in ((False, states[2]), (True, mean)):
        network = torch_unet.make_unet(4, 1, (1, 1, 1, 1)).eval()
        network.load_state_dict(
            state | {n: t for n, t in states[2].items() if n.endswith('tracked')}
        )
        with torch.no_grad():
            flipped = torch.sigmoid(network(inputs.flip(3))).flip(3)
            expected = (torch.sigmoid(network(inputs)) + flipped)[:, 0].numpy() / 2
        predict = tta.make_predict(config, build.make_model(config), ('horizontal',))
        variables = run.checkpoints.load_variables(step, shapes, averaged=averaged)
        np.testing.assert_allclose(predict(variables, jnp.asarray(images)), expected, atol=1e-5)
    rows = run.metrics()
    assert {row['epoch'] for row in rows} == {0, 1, 2}
    assert run.read_json('peer.json')['averaged_epochs'] == 2
    torch_peer.train(config, run)  # complete: nothing is trained again
    assert len(states) == 3

    config.init_from, config.num_epochs = str(run.path), 2
    second = torch_peer.make_network(config, dataset)  # from the average
    for name, tensor in second.state_dict().items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor, mean[name], rtol=1e-6, atol=1e-7)


def test_its_loss_is_ours(config):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 5, 4, 1)).astype(np.float32)
    masks = (rng.random(logits.shape) < 0.3).astype(np.float32)
    config.loss.bce, config.loss.dice, config.loss.focal = 2.0, 0.5, 4.0
    ours, _ = losses.combined(logits, masks, config.loss)
    theirs = torch_peer.loss_of(config, torch.from_numpy(logits), torch.from_numpy(masks))
    assert float(theirs['loss']) == pytest.approx(float(ours), rel=1e-6)


@pytest.mark.parametrize(
    ('key', 'value'),
    [('optimizer.accumulate', 2), ('averaging.kind', 'ema'), ('augment.window', 16)],
)
def test_what_it_does_not_do_is_refused(config, key, value):
    torch_peer.refuse(config)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=key.replace('.', r'\.')):
        torch_peer.refuse(config)


@pytest.mark.slow
def test_a_refused_configuration_is_one_line_and_status_2(tmp_path):
    """The command as its docstring has it."""
    result = subprocess.run(
        [sys.executable, '-m', 'benchmarks.torch_peer', '--config=configs/stage1.py',
         '--config.augment.window=16', f'--workdir={tmp_path}/peer', '--fold=0'],
        cwd=pathlib.Path(torch_peer.__file__).parents[1], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        'pneumojax: config.augment.window: the peer knows only 0'
    )
    assert not (tmp_path / 'peer').exists()


def disc(size=64):
    """A bright disc off the centre, and its mask."""
    y, x = np.mgrid[:size, :size]
    mask = ((y - 22) ** 2 + (x - 26) ** 2 < 144).astype(np.uint8)
    return (40 + 160 * mask).astype(np.uint8), mask


@pytest.mark.parametrize('border', ['constant', 'reflect'])
@pytest.mark.parametrize('by_hand', [True, False])
def test_image_and_mask_move_together(config, monkeypatch, by_hand, border):
    if by_hand:
        monkeypatch.setitem(sys.modules, 'albumentations', None)
    else:
        pytest.importorskip('albumentations', reason='the augmentation of the authors')
    config.image_size = 64
    for name in ('flip', 'affine', 'crop', 'warp'):
        config.augment[name] = 1.0
    # At full strength the disc may leave the frame or be squeezed to a line.
    config.augment.shift, config.augment.optical_distort = 0.1, 0.2
    config.augment.border = border
    augment = torch_augment.make_augment(config)
    assert ('by hand' in augment.name) is by_hand
    image, mask = disc()
    moved = 0
    for _ in range(20):
        new_image, new_mask = augment.call(image, mask)
        assert new_image.shape == new_mask.shape == (64, 64)
        assert new_image.dtype == new_mask.dtype == np.uint8
        assert set(np.unique(new_mask)) <= {0, 1}
        bright = new_image > 120
        union = np.sum(bright | (new_mask == 1))
        assert np.sum(bright & (new_mask == 1)) / union > 0.85
        moved += bool((new_mask != mask).any())
    assert moved == 20
    for name in ('flip', 'intensity', 'affine', 'crop', 'warp'):
        config.augment[name] = 0.0
    same = torch_augment.make_augment(config).call(image, mask)
    np.testing.assert_array_equal(same[0], image)
    np.testing.assert_array_equal(same[1], mask)
