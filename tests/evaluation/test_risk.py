"""Risk control against its definition on pixels; its guarantee where the population is known."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from pneumojax.errors import UsageError
from pneumojax.evaluation import risk, thresholds
from pneumojax.evaluation.counts import PixelCounts, pixel_histogram
from pneumojax.evaluation.rules import BINS, apply
from pneumojax.evaluation.wording import rule_sentence


def pictures(seed, n):
    """Probabilities and masks; some images have no lesion, and patients have one to three."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((n, 20, 20)) < 0.3) & (rng.random((n, 1, 1)) < 0.7)
    drawn = rng.beta(4 * rng.random((n, 1, 1)) + 1, 1, (n, 20, 20))
    probability = np.where(masks, drawn, rng.beta(1, 5, (n, 20, 20))).astype(np.float32)
    return probability, masks, np.sort(rng.integers(n // 2, size=n))


def counted(probability, masks, patients):
    histograms = np.stack([pixel_histogram(*p) for p in zip(probability, masks, strict=True)])
    return PixelCounts(histograms, np.full(len(masks), masks[0].size), patients=patients)


def test_losses_and_choice_equal_the_definition_on_pixels():
    probability, masks, patients = pictures(0, 160)
    counts = counted(probability, masks, patients)
    found = risk.losses(counts, patients)
    expected = []
    for patient in np.unique(patients[masks.any(axis=(1, 2))]):
        mine = [i for i in np.flatnonzero(patients == patient) if masks[i].any()]
        expected.append([
            np.mean([(probability[i][masks[i]] < np.float32(t)).mean() for i in mine])
            for t in risk.THRESHOLDS
        ])  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-12)
    rule, dice = thresholds.search(counts, 'risk', miss=0.3)
    n, means = len(expected), np.mean(expected, axis=0)
    passing = [t for t, mean in zip(risk.THRESHOLDS, means, strict=True)
               if brute_force_p_value(mean, n, 0.3) <= 0.05]  # fmt: skip
    assert (rule.top, rule.area, rule.bottom) == (max(passing), 0, max(passing))
    assert 0.1 < rule.top < 0.9
    marked = [apply(rule, p) for p in probability]
    sizes = [m.sum() + t.sum() for m, t in zip(marked, masks, strict=True)]
    both = [(m & t).sum() for m, t in zip(marked, masks, strict=True)]
    each = [2 * b / s if s else 1 for b, s in zip(both, sizes, strict=True)]
    assert dice == pytest.approx(np.mean(each), abs=1e-12)
    stated = risk.guarantee(counts, rule, 0.3)
    index = risk.THRESHOLDS.index(rule.top)
    assert stated == {'miss': 0.3, 'confidence': 0.95, 'patients': n,
                      'calibrated_miss': pytest.approx(means[index])}  # fmt: skip


def brute_force_p_value(mean, n, miss):
    """The smaller of Hoeffding's bound, by a search over its exponent, and Bentkus's."""
    if mean >= miss:
        return 1.0
    s = np.linspace(0, 50, 200_001)  # E exp(-s loss) is largest for losses of 0 and 1
    hoeffding = np.exp(n * (s * mean + np.log1p(miss * np.expm1(-s))).min())
    bentkus = np.e * sum(stats.binom.pmf(k, n, miss) for k in range(int(np.ceil(n * mean)) + 1))
    return min(1.0, hoeffding, bentkus)


@pytest.mark.parametrize('n', [1, 10, 50, 400])
@pytest.mark.parametrize('miss', [0.05, 0.2, 0.6])
def test_p_values_equal_both_inequalities_by_brute_force(n, miss):
    for mean in np.array([0, 0.2, 0.5, 0.77, 0.999, 1.2]) * miss + 1e-4:
        found, expected = risk.p_value(mean, n, miss), brute_force_p_value(mean, n, miss)
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('mean', [0.0, 0.03, 0.4])
def test_the_bound_is_the_smallest_share_that_is_guaranteed(mean):
    found = risk.bound(mean, 80)
    passing = [k / 1000 for k in range(1, 1000) if risk.p_value(mean, 80, k / 1000) <= 0.05]
    assert found == min(passing)


def population(seed, n):
    """Patients with lesions that are found well, badly or not at all."""
    rng = np.random.default_rng(seed)
    level = rng.beta(2.5, 0.6, (n, 1))
    bins = (rng.beta(6 * level + 0.05, 6.05 - 6 * level, (n, 200)) * BINS).astype(int)
    inside = np.apply_along_axis(np.bincount, 1, bins.clip(0, BINS - 1), minlength=BINS)
    histograms = np.stack([np.zeros_like(inside), inside], axis=1).astype(np.int32)
    return PixelCounts(histograms, np.full(n, 1 << 20), patients=np.arange(n))


@pytest.mark.parametrize(('n', 'miss'), [(60, 0.2), (220, 0.1), (1000, 0.1)])
def test_95_of_100_random_splits_hold(n, miss):
    """The mean loss of the whole population is known here, so no held-out sample blurs it."""
    everyone = population(0, 4000)
    true = risk.losses(everyone, everyone.patients).mean(axis=0)
    rng, reached = np.random.default_rng(1), []
    for _ in range(100):
        chosen = rng.choice(len(everyone), n, replace=False)
        rule, _ = thresholds.search(everyone.take(chosen), 'risk', miss=miss)
        reached.append(true[risk.THRESHOLDS.index(rule.top)])
    assert np.sum(np.array(reached) <= miss) >= 95
    assert np.mean(reached) > miss / 3  # and not by marking everything


def test_two_images_of_a_patient_are_not_two_patients():
    one = population(0, 200)
    twice = dataclasses.replace(
        one.take(np.repeat(np.arange(200), 2)), patients=np.repeat(np.arange(200), 2)
    )
    assert risk.search(twice, 0.1) == risk.search(one, 0.1)
    wrong = dataclasses.replace(twice, patients=np.arange(400))
    assert risk.search(wrong, 0.1).top > risk.search(one, 0.1).top


def test_what_cannot_be_guaranteed_is_refused():
    few = population(3, 24)
    smallest = risk.bound(risk.losses(few, few.patients)[:, 0].mean(), 24)
    with pytest.raises(UsageError, match=f'evaluation.miss is 0.1, which 24 .* {smallest:g} or'):
        thresholds.search(few, 'risk', miss=0.1)
    thresholds.search(few, 'risk', miss=smallest)
    with pytest.raises(UsageError, match=r'which 12 patients'):
        thresholds.cross_fit(few, np.arange(24) % 2, 'risk', miss=0.1)
    healthy = few.take(np.arange(24))
    healthy.histograms[:] = healthy.histograms[:, ::-1]
    with pytest.raises(UsageError, match='which 0 patients'):
        thresholds.search(healthy, 'risk', miss=0.9)


def test_the_guarantee_in_words():
    rule = {'top': 0.07, 'area': 0, 'bottom': 0.07, 'reference_pixels': 1 << 20, 'region': 0}
    stated = {'miss': 0.125, 'confidence': 0.95, 'patients': 61, 'calibrated_miss': 0.05}
    sentence = rule_sentence(rule | {'risk': stated})
    assert sentence.startswith('Every pixel that reaches a probability of 0.07 is marked.')
    assert 'With 95% confidence, it misses on average at most 12.5% of a lesion' in sentence
    assert 'like the 61' in sentence
