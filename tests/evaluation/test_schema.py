"""The schema of evaluation.json holds real evaluations and refuses broken ones.

Evaluations of folds and on images from elsewhere are checked where they are tested.
"""

import copy
import json

import pytest

from docs import evaluation_schema
from pneumojax.evaluation import metrics
from pneumojax.evaluation.sections.registry import SECTIONS
from tests.evaluation.schema import problems


@pytest.fixture(scope='module')
def report(evaluated):
    """Of a real evaluation."""
    return json.loads((evaluated / 'evaluation.json').read_text())


def test_a_real_evaluation_fits(report):
    assert problems(report) == []


def test_every_metric_and_section_is_in_it():
    schema = evaluation_schema.schema()
    assert set(metrics.METRICS) <= set(schema['required'])
    for section in SECTIONS:
        assert schema['properties'][section.key]['required'] == list(section.metrics)


def test_later_versions_may_add_keys(report):
    assert problems(report | {'something_new': {'value': 'x'}}) == []


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        ('n', -1), ('n', 1.5), ('n_positive', '3'), ('step', None), ('thresholds', 7),
        ('auc', 0.9), ('auc.value', '0.9'), ('auc.low', None), ('mean_dice.high', True),
        ('weights', 'best'), ('flips', ['diagonal']), ('data.masks', 'none'),
        ('data.patients', 4), ('trained_on.n_positive', -2), ('variants', []),
        ('variants.x', {'auc': None}),
    ],
)  # fmt: skip
def test_what_is_broken_is_refused(report, path, value):
    broken = copy.deepcopy(report)
    *groups, last = path.split('.')
    node = broken
    for group in groups:
        node = node[group]
    if last in node and isinstance(node[last], dict):
        assert problems(broken) == []
    node[last] = value
    found = problems(broken)
    assert found
    assert all(part.startswith(f'$.{path.split(".")[0]}') for part in found)


@pytest.mark.parametrize('key', [*metrics.METRICS, 'n', 'n_positive', 'step', 'thresholds'])
def test_what_lacks_a_key_is_refused(report, key):
    assert any(key in part for part in problems({k: v for k, v in report.items() if k != key}))


def test_undefined_metrics_are_null(report):
    assert problems(report | {'auc': {'value': None, 'low': None, 'high': None}}) == []
