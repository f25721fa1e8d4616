"""The frame of the benchmarks: every one can be called, and says where and how it was taken."""

import importlib
import json

import pytest

from benchmarks import report, run


@pytest.mark.parametrize('name', run.BENCHMARKS)
def test_every_benchmark_has_its_options(name, capsys):
    with pytest.raises(SystemExit) as end:
        run.main([name, '--help'])
    assert end.value.code == 0
    assert '--json' in capsys.readouterr().out


def test_an_unknown_name_lists_those_there_are(capsys):
    assert run.main(['nothing']) == 2
    assert all(name in capsys.readouterr().out for name in run.BENCHMARKS)


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
