"""Paired differences against their definition, one resample at a time, and against the t-test."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from pneumojax.errors import UsageError
from pneumojax.evaluation import comparison
from pneumojax.evaluation.comparison import Judgement
from pneumojax.runs.run import Run


def judgements(seed, seeds=3, images=60):
    rng = np.random.default_rng(seed)
    true_px = np.where(rng.random(images) < 0.4, 500, 0)
    hard = rng.random(images)

    def one(skill):
        noise = rng.normal(0, 0.1, (seeds, images))
        dice = np.clip(hard + skill + noise, 0, 1)
        return Judgement(dice, (dice > 0.5) * 100, np.clip(true_px / 900 + noise * 4, 0, 1))

    return one(0.1), one(0.0), true_px


def test_values_are_differences_of_means_over_seeds():
    first, second, true_px = judgements(0)
    found = comparison.difference(first, second, true_px, seed=0, samples=100)
    positive = true_px > 0
    expected = {
        'mean_dice': first.dice.mean() - second.dice.mean(),
        'all_empty_dice': 0,
        'positive_dice': (first.dice - second.dice)[:, positive].mean(),
        'sensitivity': ((first.predicted_px > 0) * 1 - (second.predicted_px > 0))[
            :, positive].mean(),
        'specificity': ((first.predicted_px == 0) * 1 - (second.predicted_px == 0))[
            :, ~positive].mean(),
        'auc': np.mean([roc_auc_score(positive, p) for p in first.probability])
        - np.mean([roc_auc_score(positive, p) for p in second.probability]),
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name]['difference'] == pytest.approx(value, abs=1e-12)
        assert found[name]['first'] - found[name]['second'] == pytest.approx(value, abs=1e-12)
        assert found[name]['low'] <= value <= found[name]['high']


def test_one_seed_and_single_images_give_the_interval_of_a_paired_t_test():
    first, second, true_px = judgements(1, seeds=1, images=400)
    found = comparison.difference(first, second, true_px, seed=0, samples=4000)['mean_dice']
    gap = first.dice[0] - second.dice[0]
    low, high = stats.ttest_1samp(gap, 0).confidence_interval()
    assert found['low'] == pytest.approx(low, abs=0.15 * (high - low))
    assert found['high'] == pytest.approx(high, abs=0.15 * (high - low))
    # Far narrower than what the two runs' own intervals would suggest.
    alone = 2 * 1.96 * np.sqrt((first.dice.var() + second.dice.var()) / 400)
    assert found['high'] - found['low'] < 0.5 * alone


def test_a_run_does_not_differ_from_itself():
    first, _, true_px = judgements(2)
    found = comparison.difference(first, first, true_px, seed=0, samples=100)
    assert all((f['difference'], f['low'], f['high']) == (0, 0, 0) for f in found.values())


def test_images_of_one_patient_and_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(3)
    true_px, zero = np.full(90, 500), np.zeros((1, 90))

    def width(gap, patients=None):
        first = Judgement(0.5 + gap, np.full(gap.shape, 9), gap)
        second = Judgement(0.5 + 0 * gap, np.full(gap.shape, 9), gap)
        found = comparison.difference(
            first, second, true_px, seed=0, patients=patients, samples=1000
        )['mean_dice']
        return found['high'] - found['low']

    patients = np.repeat(np.arange(30), 3).astype(str)
    same = np.repeat(rng.normal(0, 0.1, 30), 3)[None]
    assert width(same, patients) == pytest.approx(np.sqrt(3) * width(same), rel=0.15)
    seeds = np.array([[-0.1], [0.0], [0.1]]) + zero  # each image gains the same within a seed
    # Mean of 3 draws of {-0.1, 0, 0.1}: 2.5 % of 27 combinations are the extreme ones.
    assert width(seeds) == pytest.approx(0.2, abs=0.07)
    assert width(np.zeros((3, 90))) == 0


def test_shapes_that_differ_are_refused():
    first, second, true_px = judgements(4)
    with pytest.raises(ValueError, match='same 60 images'):
        comparison.difference(first, second, true_px[:-1], seed=0)
    with pytest.raises(ValueError, match='same'):
        comparison.difference(first, Judgement(*(c[:2] for c in second)), true_px, seed=0)


def write(run, rows):
    text = 'ImageId,dice,true_px,predicted_px,probability\n'
    run.path.mkdir(exist_ok=True)
    run.write_text('per_image.csv', text + ''.join(','.join(map(str, row)) + '\n' for row in rows))


def test_two_evaluated_runs_are_compared_on_the_images_of_both(config, tmp_path, capsys):
    mine, theirs = Run(tmp_path / 'mine'), Run(tmp_path / 'theirs')
    write(mine, [('a', 1.0, 0, 0, 0.1), ('b', 0.8, 9, 7, 0.9), ('only', 0.0, 9, 0, 0.3)])
    write(theirs, [('b', 0.5, 9, 7, 0.6), ('a', 0.0, 0, 4, 0.7)])
    report = comparison.compare(config, mine, str(theirs.path))
    assert report['mean_dice']['difference'] == pytest.approx(0.65)
    assert report['positive_dice']['difference'] == pytest.approx(0.3)
    assert (report['auc']['first'], report['auc']['second']) == (1.0, 0.0)
    assert mine.read_json('comparisons.json') == {str(theirs.path): report}
    printed = capsys.readouterr().out
    for words in ('mine', 'theirs', '+0.6500', 'on 2 images', '1 that only one judged'):
        assert words in printed
    comparison.compare(config, mine, str(mine / 'per_image.csv'))  # a file will do
    assert len(mine.read_json('comparisons.json')) == 2

    write(theirs, [('b', 0.5, 8, 7, 0.6)])
    with pytest.raises(UsageError, match='b has 9 px in its true mask'):
        comparison.compare(config, mine, str(theirs.path))
    write(theirs, [('c', 0.5, 8, 7, 0.6)])
    with pytest.raises(UsageError, match='no image in common'):
        comparison.compare(config, mine, str(theirs.path))
    (theirs / 'per_image.csv').write_text('ImageId,dice\na,1\n')
    with pytest.raises(UsageError, match='no per_image'):
        comparison.compare(config, mine, str(theirs.path))
    with pytest.raises(UsageError, match='--mode=evaluate'):
        comparison.compare(config, mine, str(tmp_path / 'nowhere'))
