"""The ablation: equal cost, resumed, and its figures from what it kept."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pneumojax.drawing import ablation as outputs
from pneumojax.drawing import figures
from pneumojax.errors import UsageError
from pneumojax.evaluation import rules
from pneumojax.evaluation.scores import Scores
from pneumojax.experiments import ablate
from pneumojax.runs.run import Run
from pneumojax.training import loop
from tests.conftest import tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


def two_stages(root, cache):
    config = tiny_config(root, cache)
    config.data.num_folds = 2
    config.evaluation.ablation_seeds = 2
    config.stages = {
        'low': {'image_size': 16, 'num_epochs': 4, 'averaging': {'start': 3},
                'optimizer': {'learning_rate': 0.02}},
        'then_high': {'image_size': 32, 'num_epochs': 2, 'averaging': {'start': 0}},
    }  # fmt: skip
    return config


def test_the_single_stage_costs_the_same_and_begins_where_the_first_does(config, tmp_path):
    config = two_stages(config.data.root, config.data.cache)
    config.init_from = 'pretrained'
    ((single, run),) = ablate.stages_of(config, tmp_path, ablate.SINGLE, 7)
    low, high = (stage for stage, _ in ablate.stages_of(config, tmp_path, ablate.TWO, 7))
    assert single.num_epochs * 32**2 == low.num_epochs * 16**2 + high.num_epochs * 32**2
    assert (single.num_epochs, single.averaging.start, single.image_size) == (3, 1, 32)
    assert (single.seed, low.seed, high.seed) == (7, 7, 7)
    assert single.init_from == low.init_from == 'pretrained'
    assert high.init_from == str(tmp_path / 'seed7' / 'two' / 'low')
    assert single.optimizer.learning_rate == 0.02
    assert run.path == tmp_path / 'seed7' / 'single'


@pytest.mark.slow
def test_the_table_is_what_the_kept_scores_say(phantoms, cache, tmp_path, monkeypatch):
    config, path = two_stages(phantoms, cache), tmp_path / 'x'
    train, seen = loop.train, []

    def interrupted(stage, run):
        seen.append(run.path.relative_to(path).as_posix())
        if len(seen) == 5:
            raise KeyboardInterrupt
        train(stage, run)

    monkeypatch.setattr(loop, 'train', interrupted)
    with pytest.raises(KeyboardInterrupt):
        ablate.ablate(config, path)
    monkeypatch.setattr(loop, 'train', train)
    before = {p: p.stat().st_mtime_ns for p in path.rglob('seed0/**/*') if p.is_file()}
    report = ablate.ablate(config, path)
    after = {p: p.stat().st_mtime_ns for p in before}
    assert before == after
    assert seen[:4] == ['seed0/two/low', 'seed0/two/then_high', 'seed0/single', 'seed1/two/low']

    rows = {row['name']: row for row in report['rows']}
    assert [len(row['seeds']) for row in rows.values()] == [2] * 6
    whole, single = (
        [Run(path / f'seed{s}' / name).read_arrays('ablation.npz') for s in (0, 1)]
        for name in ('two/then_high', 'single')
    )
    positive = whole[0]['histograms_0'][:, 1].any(axis=1)
    mean_auc = [np.mean([roc_auc_score(positive, k['score_0']) for k in kept])
                for kept in (whole, single)]  # fmt: skip
    lost = rows['single stage, equal cost']['lost']['auc']
    assert rows['all parts']['figures']['auc'] == pytest.approx(mean_auc[0])
    assert lost['difference'] == pytest.approx(mean_auc[0] - mean_auc[1])
    assert lost['low'] <= lost['difference'] <= lost['high']
    assert rows['all parts']['lost'] is None
    # Four predictions of the two-stage network, all different; the area rule needs none.
    kept = [whole[0][f'score_{i}'] for i in range(4)]
    assert len({tuple(p) for p in kept}) == 4
    assert 'probability_4' not in whole[0]
    without = rows['without the area rule']['figures']
    assert without['auc'] == rows['all parts']['figures']['auc']

    costs = report['training']
    assert costs[ablate.TWO]['pixels'] == costs[ablate.SINGLE]['pixels'] > 0
    curves = json.loads((path / 'ablation.json').read_text())['curves']
    assert [len(c) for c in curves[ablate.TWO]] == [6, 6]
    for training, seeds in curves.items():
        assert seeds[0][-1]['pixels'] == costs[training]['pixels']
    assert 'without flips (TTA)' in (path / 'ablation.md').read_text()
    table = list(csv.DictReader((path / 'ablation.csv').open()))
    assert len(table) == 6 * 6
    assert (path / 'ablation.png').read_bytes().startswith(b'\x89PNG')


def test_without_stages_it_says_what_it_needs(config, tmp_path):
    with pytest.raises(UsageError, match=r'configs/ablation\.py'):
        ablate.ablate(config, tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


def test_parts_that_a_config_does_not_have_are_not_in_the_table(config):
    config.averaging.kind, config.tta.flips = 'none', ()
    names = [arm.name for arm in ablate.arms(config)]
    assert names == ['all parts', 'single stage, equal cost', 'without the area rule']
    assert not any(arm.variant.averaged for arm in ablate.arms(config))


def test_the_area_rule_is_taken_away_by_allowing_no_area(config):
    """False alarms of 100 px, lesions of 10,000 px: only the area tells them apart."""
    histograms = np.zeros((12, 2, rules.BINS), np.int32)
    size = rules.REFERENCE_PIXELS
    histograms[:, 0, 5] = size
    histograms[::2, 0, 5], histograms[::2, 1, 900] = size - 10_000, 10_000  # six
    histograms[1::6, 0, 5], histograms[1::6, 0, 900] = size - 100, 100  # two
    scored = Scores(histograms, np.full(12, size), score=np.full(12, 0.5))
    examples = [SimpleNamespace(image_id=str(i), patient_id=str(i)) for i in range(12)]
    assert ablate._cross_fit(config, scored, examples, area_rule=True).dice.mean() == 1
    assert ablate._cross_fit(config, scored, examples, area_rule=False).dice.mean() == 10 / 12


def test_figures_that_are_not_defined_are_left_empty(tmp_path):
    names = ('mean_dice', 'all_empty_dice', 'positive_dice', 'sensitivity', 'specificity', 'auc')
    nothing = {'difference': None, 'low': None, 'high': None}
    some = dict.fromkeys(names, 0.5) | {'positive_dice': None}
    gap = {'difference': 0.1, 'low': -0.1, 'high': 0.2}
    row = {'name': 'all parts', 'figures': some, 'lost': None, 'seeds': []}
    other = row | {'name': 'less', 'lost': dict.fromkeys(names, gap) | {'positive_dice': nothing}}
    report = {
        'rows': [row, other], 'n': 3, 'n_positive': 0, 'seeds': [0], 'intervals': '95 %',
        'training': {'two stages': {'pixels': 1e6, 'seconds': 2.0}},
    }  # fmt: skip
    assert '| less | 0.500 | +0.100 (-0.100 to +0.200) | - |  | 0.500 |' in outputs.markdown(report)
    points = [{'pixels': 1e6 * i, 'stage': 0, 'positive_dice': None} for i in range(2)]
    figures.save(outputs.draw_ablation(report, {'two stages': [points]}, 'x'), tmp_path / 'a.png')
    assert (tmp_path / 'a.png').stat().st_size > 1000
