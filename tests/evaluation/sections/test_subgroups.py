"""Subgroups: figures against those of the group alone; a planted gap and none."""

import json

import numpy as np
import pytest

from pneumojax.data.datasets.example import Example
from pneumojax.evaluation import metrics, report_subgroups
from pneumojax.evaluation.sections import registry, subgroups
from pneumojax.evaluation.sections.section import Measured
from pneumojax.evaluation.wording import subgroups_sentence
from tests.evaluation.tables import table


def cohort(seed, n, gap=0.0):
    """Images of patients who have one or two; the Dice of men is lower by about `gap`."""
    rng = np.random.default_rng(seed)
    patient = np.unique(rng.integers(int(0.8 * n), size=n), return_inverse=True)[1]
    man, age, maker = rng.integers(2, size=n), rng.integers(5, size=n), rng.integers(3, size=n)
    man, age, maker = (column[patient] for column in (man, age, maker))
    positive = rng.random(n) < 0.22
    found = np.clip(rng.beta(1.3, 0.65, n) + rng.normal(0, 0.1, n)[patient], 0, 1)
    found *= (rng.random(n) > 0.08) * (1 - gap / 0.6 * man)
    marked = np.where(positive, found > 0, rng.random(n) < 0.1)
    images = table(
        np.where(positive, found, ~marked), positive * 1000, marked * 900,
        rng.normal(size=n) + 1.8 * positive, [f'p{k}' for k in patient],
    )  # fmt: skip
    groups = {
        'Sex': np.where(man, 'male', 'female'),
        'Age': np.array(['0-17', '18-39', '40-59', '60-79', '80+'])[age],
        'site': np.array(['a', 'b', 'c'])[maker],
    }
    return images, groups


def details(images, groups, samples=100):
    return subgroups.details(Measured(images, groups=groups), seed=0, samples=samples)


def test_figures_are_those_of_the_group_alone():
    images, groups = cohort(0, 700)
    groups['site'] = np.where(np.arange(700) % 5, groups['site'], '')  # some are unknown
    found = details(images, groups)
    json.dumps(found, allow_nan=False)
    for grouping, values in groups.items():
        shown = found['groupings'][grouping]
        assert list(shown['groups']) == sorted(set(values) - {''})
        assert shown['unknown'] == np.sum(values == '')
        for group, row in shown['groups'].items():
            alone = images.take(np.flatnonzero(values == group))
            assert (row['n'], row['n_positive']) == (len(alone), alone.positive.sum())
            expected = metrics.compute(alone, None, subgroups.FIGURES)[0]
            np.testing.assert_allclose([row[f]['value'] for f in subgroups.FIGURES], expected)
            for figure in subgroups.FIGURES:
                assert row[figure]['low'] < row[figure]['value'] < row[figure]['high']
    for row in found['differences']:
        values = np.asarray(groups[row['grouping']])
        sides = values == row['group'], (values != row['group']) & (values != '')
        one, other = (
            metrics.compute(images.take(np.flatnonzero(side)), None, subgroups.FIGURES)[0]
            for side in sides
        )
        k = list(subgroups.FIGURES).index(row['figure'])
        assert row['difference'] == pytest.approx(one[k] - other[k])
        assert row['p'] <= row['p_adjusted']
    # Women against men is men against women: 1 + 5 + 3 groups.
    assert found['tests'] == len(found['differences']) == 4 * 9


def test_small_groups_and_few_patients_are_not_shown():
    images, _ = cohort(1, 400)
    of_one = np.array(['p0' if i < 25 else f'p{i}' for i in range(400)])
    images = table(images.dice, images.true_px, images.predicted_px, images.score, of_one)
    rare = np.where(np.arange(400) >= 381, 'nineteen', 'most')
    rare[:25] = 'one patient'
    healthy = np.where(images.positive, 'ill', np.where(np.arange(400) % 2, 'well', 'very well'))
    found = details(images, {'rare': rare, 'healthy': healthy, 'none': [''] * 400})
    assert set(found['groupings']) == {'rare', 'healthy'}
    assert list(found['groupings']['rare']['groups']) == ['most']
    assert found['groupings']['rare']['not_shown'] == {'groups': 2, 'n': 44}
    text = json.dumps(found) + report_subgroups.tables(found)
    assert 'nineteen' not in text
    assert 'one patient' not in text
    ill = found['groupings']['healthy']['groups']['ill']
    assert ill['specificity'] == ill['auc'] == {'value': None, 'low': None, 'high': None}
    assert {row['figure'] for row in found['differences'] if row['grouping'] == 'healthy'} == {
        'specificity'  # of those who are well, the ill have none
    }
    assert details(images, {}) == details(images, {'none': [''] * 400}) == {}
    assert 'subgroups' not in registry.summarize(Measured(images), seed=0, samples=100)


def test_lesions_are_divided_by_the_share_of_the_image(tmp_path):
    (tmp_path / 'groups.csv').write_text('ImageId,site\ni0,a\ni3,b\n')
    examples = [Example(f'i{k}', str(tmp_path / 'gone'), (), 'p') for k in range(4)]
    found = subgroups.find(
        examples, np.array([0, 49, 50, 200]), np.full(4, 10_000), str(tmp_path / 'groups.csv')
    )
    assert found == {
        'Lesion size': ['', '0 to 0.5 % of the image', '0.5 to 2 %', '2 % and more'],
        'site': ['a', '', '', 'b'],
    }


def test_bands_are_in_their_order():
    names = ['80+', '18-39', 'b', '0 to 5', 'a', 'above 5 to 7.5']
    assert sorted(names, key=subgroups._rank) == [
        '0 to 5', 'above 5 to 7.5', '18-39', '80+', 'a', 'b',
    ]  # fmt: skip


def test_a_planted_gap_of_a_tenth_is_found():
    """Among 1,300 positives of 6,000 images; with 220 there is too much chance in the Dice."""
    found = details(*cohort(0, 6000, gap=0.1), samples=200)
    alarms = [row for row in found['differences'] if row['p_adjusted'] <= subgroups.LEVEL]
    assert [(row['grouping'], row['figure']) for row in alarms] == [('Sex', 'positive_dice')]
    assert found['alarms'] == 1
    assert abs(alarms[0]['difference']) == pytest.approx(0.1, abs=0.04)
    assert alarms[0]['low'] * alarms[0]['high'] > 0
    assert '1 of 36 differences hold' in report_subgroups.tables(found)


def test_twenty_runs_without_a_gap_raise_no_alarm():
    for seed in range(20):
        found = details(*cohort(seed, 984), samples=150)
        assert found['alarms'] == 0
        assert found['tests'] == 36


def test_names_of_groups_are_text_on_the_page():
    images, groups = cohort(0, 300)
    name = '<b>|*site*'
    found = details(
        images, {name: groups['site'], '<i>': np.where(groups['Sex'] == 'male', '<u>', 'x')}
    )
    page = report_subgroups.tables(found)
    assert not [tag for tag in ('<b>', '<i>', '<u>') if tag in page]
    sentence = subgroups_sentence({'subgroups': found})
    assert '&lt;b&gt;\\|\\*site\\*' in sentence
    assert 'manufacturer, drains in place' in sentence
    assert 'were not measured separately' in subgroups_sentence({})
