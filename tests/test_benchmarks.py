"""The frame of the benchmarks: every one can be called, and says where and how it was taken."""

import importlib
import json

import jax
import numpy as np
import pytest

from benchmarks import held_memory, report, run
from configs import base
from pneumojax.models import build, pretrained
from tests.waiting import wait_for


@pytest.mark.parametrize('name', run.BENCHMARKS)
def test_every_benchmark_has_its_options(name, capsys):
    with pytest.raises(SystemExit) as end:
        run.main([name, '--help'])
    assert end.value.code == 0
    assert '--json' in capsys.readouterr().out


def test_an_unknown_name_lists_those_there_are(capsys):
    assert run.main(['nothing']) == 2
    printed = capsys.readouterr().out
    assert all(name in printed for name in run.BENCHMARKS)


def test_table_and_json_say_what_was_measured(tmp_path, capsys, monkeypatch):
    rows = [{'part': 'a', 'seconds': 0.123456}, {'part': 'b', 'images/s': 1234.5}]
    module = importlib.import_module('benchmarks.predict_memory')
    monkeypatch.setattr(module, 'measure', lambda options: report.Report(rows, ['a note']))
    path = tmp_path / 'new' / 'out.json'
    assert run.main(['predict_memory', f'--json={path}', '--images=3']) == 0
    printed = capsys.readouterr().out
    assert '| a    | 0.123   |          |' in printed
    assert '| b    |         | 1234     |' in printed
    written = json.loads(path.read_text())
    assert written['rows'] == rows
    assert written['options']['images'] == '3'
    assert written['machine']['cores'] >= 1
    assert {'jax', 'numpy'} <= written['versions'].keys()


def test_the_median_of_the_timed_calls(monkeypatch):
    clock = iter([0, 5, 10, 11, 20, 22])
    monkeypatch.setattr(report.time, 'perf_counter', lambda: next(clock))
    calls = []
    timing = report.seconds(lambda: calls.append(1), repeats=3, warmup=2)
    assert timing == (2, 1, 5)
    assert len(calls) == 5


def test_calls_in_turn_are_each_judged_by_their_quiet_middle(monkeypatch):
    seconds = {'a': iter([3, 1, 2]), 'b': iter([9, 8, 7])}
    others = {'a': iter([0.5, 0, 0]), 'b': iter([0.2, 0.3, 0.4])}
    order = []
    monkeypatch.setattr(
        report, '_once', lambda call: report.Usage(next(seconds[call]), 2, next(others[call]))
    )
    usages = report.watch_in_turn({'a': 'a', 'b': 'b'}, 3, order.append)
    assert order == ['a', 'b'] * 3
    assert usages['a'].seconds == 2  # of the two that were not disturbed
    assert usages['b'] == (9, 2, 0.2)  # none was: the least


def test_held_memory_goes_as_something_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(held_memory, '_PIECE', 10)
    monkeypatch.setattr(held_memory, '_AHEAD', 20)
    monkeypatch.setattr(held_memory, '_EVERY', 0.001)
    folder = tmp_path / 'held'
    held_memory.hold(folder, 100)
    assert sum(path.stat().st_size for path in folder.iterdir()) == 140
    written = []
    with held_memory.give_up(folder, lambda: sum(written)):
        for more, left in ((0, 120), (35, 90), (65, 20)):
            written.append(more)
            wait_for(lambda left=left: len(list(folder.iterdir())) * 10 == left)


def test_the_pytorch_peer_is_the_same_network():
    """Training compared at equal work: our weights give our logits there, by smp's own names."""
    torch = pytest.importorskip('torch', reason='compares with PyTorch')
    from benchmarks import torch_unet

    config = base.get_config()
    config.model.width, config.model.stage_sizes = 8, (1, 2, 1, 1)
    variables = jax.device_get(build.initial_variables(config))
    state_dict = {k: torch.from_numpy(v) for k, v in pretrained.to_torch(variables).items()}
    peer = torch_unet.make_unet(8, 3, (1, 2, 1, 1)).eval()
    peer.load_state_dict(state_dict, strict=True)
    images = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)
    with torch.no_grad():
        theirs = peer(torch.from_numpy(images.transpose(0, 3, 1, 2)))[:, 0].numpy()
    apply = jax.jit(lambda v, x: build.make_model(config).apply(v, x, train=False))
    ours = apply(variables, images)[..., 0]
    assert np.abs(theirs - ours).max() < 1e-5 * np.abs(ours).max()
    full = sum(p.numel() for p in torch_unet.UNet().parameters())
    assert full == 24_436_369
