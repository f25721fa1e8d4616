"""Groups of images: the figures of each, and whether one differs from the rest."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pneumojax.data.datasets import subgroups
from pneumojax.data.datasets.example import Example
from pneumojax.evaluation import metrics, report_subgroups
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.sections.section import Measured, Section
from pneumojax.evaluation.statistics import bootstrap, permutation

FEWEST_IMAGES, FEWEST_PATIENTS = 20, 10  # of a group that is shown
LEVEL = 0.01  # of the whole family of tests
FIGURES = {name: metrics.METRICS[name] for name in report_subgroups.FIGURES}
LESION_SIZE = 'Lesion size'
_SIZES = ((0.005, '0 to 0.5 % of the image'), (0.02, '0.5 to 2 %'), (math.inf, '2 % and more'))


def find(
    examples: Sequence[Example], true_px: np.ndarray, pixels: np.ndarray, table: str = ''
) -> dict[str, list[str]]:
    """The groups of N images by lesion size, by their headers, and by a table.

    Args:
      examples: the images.
      true_px: int64 [N], pixels of each true mask.
      pixels: int64 [N], pixels of each image.
      table: see `subgroups.of_table`; '' for none.

    Raises:
      UsageError: the table cannot be used.
    """
    sizes = [next(name for end, name in _SIZES if share < end) if share else ''
             for share in true_px / pixels]  # fmt: skip
    found = {LESION_SIZE: sizes, **subgroups.of_headers([e.path for e in examples])}
    if table:
        found |= subgroups.of_table(table, [e.image_id for e in examples])
    return found


class _Test(NamedTuple):
    """One group against all other images whose group is known."""

    grouping: str
    group: str
    members: np.ndarray  # bool [N]
    rest: np.ndarray  # bool [N]
    figures: list[str]  # those that both sides have enough patients for


def details(measured: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    """The content of `subgroups` in evaluation.json; {} where no image's group is known.

    Args:
      measured: N images and their groups.
      seed: of the resamples, which are those of all other figures, and of the permutations.
      samples: how many of each.

    Returns:
      'groupings': {grouping: {'groups': {group: {'n', 'n_positive', 'patients', and of each figure
      'value', 'low', 'high'}}, 'not_shown': {'groups', 'n'}, 'unknown'}}; 'differences': a list of
      {'grouping', 'group', 'figure', 'difference', 'low', 'high', 'p', 'p_adjusted'}; 'tests',
      'level', and 'alarms', the number of adjusted p-values at or below the level.
    """
    images = measured.images
    groupings, tests = {}, []
    for grouping, values in measured.groups.items():
        labels = np.asarray(values, dtype=object)
        known = labels != ''
        if known.any():
            groupings[grouping], found = _divide(images, grouping, labels, known)
            tests += found
    if not groupings:
        return {}
    drawn = _resample(images, tests, seed, samples)
    for test, (inside, _) in zip(tests, drawn, strict=True):
        row = groupings[test.grouping]['groups'][test.group]
        group = images.take(np.flatnonzero(test.members))
        possible = _enough(images, test.members)
        values = _measure(images, test.members)
        for name, value, column in zip(FIGURES, values, inside.T, strict=True):
            value = value if name in possible else np.nan
            row[name] = metrics.interval(FIGURES[name], group, value, column)
    differences = _differences(images, tests, drawn, seed, samples)
    return {
        'groupings': groupings,
        'differences': differences,
        'tests': len(differences),
        'level': LEVEL,
        'alarms': sum(row['p_adjusted'] <= LEVEL for row in differences),
        'fewest': {'images': FEWEST_IMAGES, 'patients': FEWEST_PATIENTS},
    }


def _divide(
    images: PerImage, grouping: str, labels: np.ndarray, known: np.ndarray
) -> tuple[dict[str, Any], list[_Test]]:
    """One grouping: its shown groups, still without figures, and their tests."""
    patients = np.asarray(images.patients)
    shown: dict[str, dict[str, Any]] = {}
    tests: list[_Test] = []
    hidden = {'groups': 0, 'n': 0}
    for group in sorted(set(labels[known]), key=_rank):
        members = labels == group
        n, whom = int(members.sum()), len(set(patients[members]))
        if n < FEWEST_IMAGES or whom < FEWEST_PATIENTS:
            hidden = {'groups': hidden['groups'] + 1, 'n': hidden['n'] + n}
            continue
        n_positive = int((members & images.positive).sum())
        shown[group] = {'n': n, 'n_positive': n_positive, 'patients': whom}
        rest = known & ~members
        # Of two groups, one difference says all.
        twice = any(np.array_equal(rest, test.members) for test in tests)
        figures = [] if twice else [
            name for name in FIGURES
            if name in _enough(images, members) and name in _enough(images, rest)
        ]  # fmt: skip
        tests.append(_Test(grouping, group, members, rest, figures))
    unknown = int((~known).sum())
    return {'groups': shown, 'not_shown': hidden, 'unknown': unknown}, tests


def _rank(group: str) -> tuple[float, str]:
    """Bands in their order, words by the alphabet."""
    number = re.match(r'(?:above )?(-?\d+(?:\.\d+)?)', group)
    return (float(number[1]) if number else math.inf, group)


def _enough(images: PerImage, members: np.ndarray) -> set[str]:
    """The figures that these images have enough patients for."""
    patients = np.asarray(images.patients)
    positive, negative = (
        len(set(patients[members & side])) >= FEWEST_PATIENTS
        for side in (images.positive, ~images.positive)
    )
    return {
        *(('positive_dice', 'sensitivity') if positive else ()),
        *(('specificity',) if negative else ()),
        *(('auc',) if positive and negative else ()),
    }


def _measure(images: PerImage, weights: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
    """float64 [F] or [S, F]: figures, all by default, of images that are weighted [N] or [S, N]."""
    wanted = {name: FIGURES[name] for name in names or FIGURES}
    found = metrics.compute(images, np.atleast_2d(weights).astype(np.float64), wanted)
    return found if np.ndim(weights) == 2 else found[0]


def _resample(
    images: PerImage, tests: Sequence[_Test], seed: int, samples: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(figures, differences in `test.figures`) of each test's group on resamples of patients."""
    found: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in tests]
    sides = [
        [(images.take(np.flatnonzero(side)), np.flatnonzero(side))
         for side in (test.members, test.rest)[: 1 + bool(test.figures)]]
        for test in tests
    ]  # fmt: skip
    for weights in bootstrap.resamples(np.random.default_rng(seed), images.patients, samples):
        for test, (group, *rest), (inside, gaps) in zip(tests, sides, found, strict=True):
            inside.append(_measure(group[0], weights[:, group[1]]))
            if rest:
                columns = [list(FIGURES).index(name) for name in test.figures]
                other = _measure(rest[0][0], weights[:, rest[0][1]], test.figures)
                gaps.append(inside[-1][:, columns] - other)
    return [(np.concatenate(inside), np.concatenate(gaps) if gaps else np.empty((samples, 0)))
            for inside, gaps in found]  # fmt: skip


def _differences(
    images: PerImage, tests: Sequence[_Test], drawn: Any, seed: int, samples: int
) -> list[dict[str, Any]]:
    """Each group less the rest, with p-values that know of all of them."""
    tested = [(test, gaps) for test, (_, gaps) in zip(tests, drawn, strict=True) if test.figures]
    if not tested:
        return []

    def gap(test: _Test, rows: Any) -> np.ndarray:
        members, rest = (_measure(images, side[rows], test.figures)
                         for side in (test.members, test.rest))  # fmt: skip
        return members - rest

    everyone = np.arange(len(images))
    observed = np.concatenate([gap(test, everyone) for test, _ in tested])
    rng = np.random.default_rng([seed, 1])
    permuted = np.concatenate([
        np.concatenate([gap(test, rows) for test, _ in tested], axis=1)
        for rows in permutation.permutations(rng, images.patients, images.positive, samples)
    ])  # fmt: skip
    alone, adjusted = permutation.p_values(observed, permuted)
    names = [(test.grouping, test.group, name) for test, _ in tested for name in test.figures]
    columns = np.concatenate([gaps for _, gaps in tested], axis=1).T
    rows = []
    for k, (grouping, group, figure) in enumerate(names):
        low, high = bootstrap.interval(observed[k], columns[k])
        rows.append({
            'grouping': grouping, 'group': group, 'figure': figure,
            'difference': float(observed[k]), 'low': low, 'high': high,
            'p': float(alone[k]), 'p_adjusted': float(adjusted[k]),
        })  # fmt: skip
    return rows


SUBGROUPS = Section(
    key='subgroups',
    title='Subgroups',
    note=f'Groups of fewer than {FEWEST_IMAGES} images or {FEWEST_PATIENTS} patients are not '
    f'shown, nor is a figure of fewer than {FEWEST_PATIENTS} patients with, or without, a '
    'pneumothorax. Each group is compared with all other images whose group is known. The '
    'adjusted p-value is that of the largest of all differences when labels are exchanged between '
    'patients: where no group differs, one evaluation in a hundred has one of 0.01 or less.',
    metrics={},
    names={},
    details=details,
    html=report_subgroups.tables,
)
