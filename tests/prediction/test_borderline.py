"""Which images are borderline: against shifted logits, and where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumojax.evaluation import metrics, rules
from pneumojax.evaluation.rules import Rule
from pneumojax.prediction import borderline


def by_shifted_logits(rule, probability, error):
    """Dice of the masks that logits shifted up and down make: a second definition."""
    logit = np.log(probability / (1 - probability))
    up, down = (1 / (1 + np.exp(-(logit + shift))) for shift in (error, -error))
    return metrics.dice(rules.apply(rule, up), rules.apply(rule, down))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 0.5, 2.0]),
    top=st.integers(1, 999),
    gap=st.integers(0, 300),
    area=st.sampled_from([0, 40, 200, 800]),
    region=st.sampled_from([0, 30]),
)
def test_it_agrees_with_shifted_logits(seed, scale, top, gap, area, region):
    """The answer may differ by float32's rounding where the shift is all but the error."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, scale, (5, 5)) + np.log(top / (1000 - top))
    logit = np.kron(coarse, np.ones((8, 8))) + rng.normal(0, 0.02, (40, 40))
    probability = 1 / (1 + np.exp(-logit))
    rule = Rule(top / 1000, area, max(1, top - gap) / 1000, 1600, region)
    least, most = (
        by_shifted_logits(rule, probability, borderline.LOGIT_ERROR + off)
        for off in (-0.002, 0.002)
    )
    found = borderline.is_borderline(rule, probability.astype(np.float32))
    if least < borderline.LEAST_DICE:
        assert found
    if most >= borderline.LEAST_DICE:
        assert not found


def disc(radius, low=0.01, high=0.99, size=200):
    """A lesion with a soft edge, three pixels wide in logits of -4.6 to 4.6."""
    y, x = np.mgrid[:size, :size] - size / 2
    inside = np.clip((radius - np.hypot(y, x)) / 3 + 0.5, 0, 1)
    logits = np.log(low / (1 - low)) * (1 - inside) + np.log(high / (1 - high)) * inside
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.mark.parametrize(
    ('radius', 'area', 'expected'),
    [
        (40, 0, False),  # its outline moves by a sixtieth of a pixel
        (40, 5020, True),  # 12 of its 5,025 pixels lie right on the outline
        (40, 4000, False),
        (40, 6000, False),
        (0.01, 0, True),  # one pixel, just above the threshold
        (-5, 0, False),  # nothing anywhere
    ],
)
def test_large_lesions_are_not_and_those_at_a_limit_are(radius, area, expected):
    rule = Rule(0.5, area, 0.5, 200 * 200)
    assert borderline.is_borderline(rule, disc(radius)) == expected


def test_what_is_just_too_faint_to_be_marked_is_borderline():
    rule = Rule(0.5, 600, 0.5, 200 * 200)
    faint, fainter = disc(40, high=0.495), disc(40, high=0.48)  # logits of -0.02 and -0.08
    assert not rules.apply(rule, faint).any()
    assert borderline.is_borderline(rule, faint)
    assert not borderline.is_borderline(rule, fainter)


@pytest.mark.parametrize(
    ('distance', 'expected'), [(0.04, True), (-0.04, True), (0.06, False), (-0.06, False)]
)
def test_every_threshold_is_watched(distance, expected):
    """A lesion whose logit is so far above or below the threshold, for every one there is."""
    for thousandths in range(1, 1000):
        logit = np.log(thousandths / (1000 - thousandths)) + distance
        probability = np.full((8, 8), 1e-4, np.float32)
        probability[2:6, 2:6] = 1 / (1 + np.exp(-logit))
        threshold = thousandths / 1000
        found = borderline.is_borderline(Rule(threshold, 0, threshold), probability)
        assert found == expected, threshold
