"""Paired differences against their definition, one resample at a time, and against the t-test."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from pneumojax.errors import UsageError
from pneumojax.evaluation import comparison, per_image
from pneumojax.evaluation.sections.section import Section
from pneumojax.runs.run import Run
from tests.evaluation.tables import table


def tables(seed, seeds=3, images=60):
    """Two methods, a good one and a worse one, under several seeds of training."""
    rng = np.random.default_rng(seed)
    true_px = np.where(rng.random(images) < 0.4, 500, 0)
    hard = rng.random(images)

    def one(skill):
        noise = rng.normal(0, 0.1, (seeds, images))
        dice = np.clip(hard + skill + noise, 0, 1)
        columns = dice, (dice > 0.5) * 100, np.clip(true_px / 900 + noise * 4, 0, 1)
        return [table(d, true_px, px, p) for d, px, p in zip(*columns, strict=True)]

    return one(0.1), one(0.0)


def stacked(side, name):
    """[seeds, images]: one column of all seeds."""
    return np.stack([getattr(images, name) for images in side])


def test_values_are_differences_of_means_over_seeds():
    ours, theirs = tables(0)
    found = comparison.difference(ours, theirs, seed=0, samples=100)
    positive = ours[0].positive
    dice, marked = (stacked(ours, k) * 1 - stacked(theirs, k) for k in ('dice', 'marked'))
    expected = {
        'mean_dice': stacked(ours, 'dice').mean() - stacked(theirs, 'dice').mean(),
        'all_empty_dice': 0,
        'positive_dice': dice[:, positive].mean(),
        'sensitivity': marked[:, positive].mean(),
        'specificity': -marked[:, ~positive].mean(),
        'auc': np.mean([roc_auc_score(positive, images.score) for images in ours])
        - np.mean([roc_auc_score(positive, images.score) for images in theirs]),
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name]['difference'] == pytest.approx(value, abs=1e-12)
        assert found[name]['first'] - found[name]['second'] == pytest.approx(value, abs=1e-12)
        assert found[name]['low'] <= value <= found[name]['high']


def test_one_seed_and_single_images_give_the_interval_of_a_paired_t_test():
    ours, theirs = tables(1, seeds=1, images=400)
    found = comparison.difference(ours, theirs, seed=0, samples=4000)['mean_dice']
    gap = ours[0].dice - theirs[0].dice
    low, high = stats.ttest_1samp(gap, 0).confidence_interval()
    assert found['low'] == pytest.approx(low, abs=0.15 * (high - low))
    assert found['high'] == pytest.approx(high, abs=0.15 * (high - low))
    # Far narrower than what the two runs' own intervals would suggest.
    alone = 2 * 1.96 * np.sqrt((ours[0].dice.var() + theirs[0].dice.var()) / 400)
    assert found['high'] - found['low'] < 0.5 * alone


def test_a_run_does_not_differ_from_itself():
    ours, _ = tables(2)
    found = comparison.difference(ours, ours, seed=0, samples=100)
    assert all((f['difference'], f['low'], f['high']) == (0, 0, 0) for f in found.values())


def test_images_of_one_patient_and_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(3)
    true_px, zero = np.full(90, 500), np.zeros((1, 90))

    def width(gap, patients=None):
        ours, theirs = (
            [
                table(row, true_px, true_px, one, patients)
                for row, one in zip(dice, gap, strict=True)
            ]
            for dice in (0.5 + gap, 0.5 + 0 * gap)
        )
        found = comparison.difference(ours, theirs, seed=0, samples=1000)['mean_dice']
        return found['high'] - found['low']

    patients = np.repeat(np.arange(30), 3).astype(str)
    same = np.repeat(rng.normal(0, 0.1, 30), 3)[None]
    assert width(same, patients) == pytest.approx(np.sqrt(3) * width(same), rel=0.15)
    seeds = np.array([[-0.1], [0.0], [0.1]]) + zero  # each image gains the same within a seed
    # Mean of 3 draws of {-0.1, 0, 0.1}: 2.5 % of 27 combinations are the extreme ones.
    assert width(seeds) == pytest.approx(0.2, abs=0.07)
    assert width(np.zeros((3, 90))) == 0


def test_results_of_other_images_or_seeds_are_refused():
    ours, theirs = tables(4)
    others = tables(5)[1]
    for bad in (theirs[:2], others, [images.take(range(59)) for images in theirs]):
        with pytest.raises(ValueError, match='same 60 images and 3 seeds'):
            comparison.difference(ours, bad, seed=0)


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
    for words in ('mine', 'theirs', '+0.6500', 'on the 2 images', '1 that only one evaluated'):
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
    with pytest.raises(UsageError, match='not a per_image'):
        comparison.compare(config, mine, str(theirs.path))
    with pytest.raises(UsageError, match='--mode=evaluate'):
        comparison.compare(config, mine, str(tmp_path / 'nowhere'))


def test_sections_are_compared_where_both_sides_measured_them(tmp_path, monkeypatch, capsys):
    """Plain paired differences; where one side lacks the column, there is no such section."""

    def probability(images, weights):
        return weights @ images.probability / weights.sum(axis=1)

    section = Section(
        'extra', 'More figures', 'The mean.', {'mean_probability': probability},
        {'mean_probability': 'Mean probability'}, needs=('probability',),
    )  # fmt: skip
    monkeypatch.setattr(comparison, 'SECTIONS', (section,))
    ours, theirs = (side[0] for side in tables(4))
    for name, images, column in (
        ('a', ours, ours.score), ('b', theirs, theirs.score / 2), ('c', theirs, None),
    ):  # fmt: skip
        with_column = dataclasses.replace(images, probability=column)
        (tmp_path / name).mkdir()
        (tmp_path / name / 'per_image.csv').write_text(per_image.to_csv(with_column))
    found = comparison.compare(None, Run(tmp_path / 'a'), str(tmp_path / 'b'))
    assert found['extra']['mean_probability']['difference'] == pytest.approx(
        ours.score.mean() - theirs.score.mean() / 2, abs=1e-6
    )
    shown = capsys.readouterr().out
    assert shown.index('Dice on images') < shown.index('More figures') < shown.index('Mean prob')
    assert 'extra' not in comparison.compare(None, Run(tmp_path / 'a'), str(tmp_path / 'c'))
