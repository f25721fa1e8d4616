"""The tables of subgroups in report.html."""

from collections.abc import Mapping
from html import escape
from typing import Any

from pneumojax.evaluation.wording import METRIC_NAMES, value_and_interval

FIGURES = ('positive_dice', 'sensitivity', 'specificity', 'auc')
_MOST = 10  # differences that are shown; evaluation.json has all


def tables(found: Mapping[str, Any]) -> str:
    """The groups, then the clearest differences, as HTML.

    Args:
      found: `subgroups` of an evaluation.json.
    """
    names = ['Images (positive)', *(METRIC_NAMES[figure] for figure in FIGURES)]
    rows = [_head('', names)]
    for grouping, of in found['groupings'].items():
        rows.append(f'<tr><th>{escape(grouping)}</th></tr>')
        for group, row in of['groups'].items():
            cells = [f'{row["n"]:,} ({row["n_positive"]:,})']
            cells += [_figure(row[figure]) for figure in FIGURES]
            rows.append(_row(group, names, cells))
        if rest := _rest(of):
            rows.append(f'<tr><td colspan="{len(names) + 1}">{rest}</td></tr>')
    return f'<table>{"".join(rows)}</table>{_differences(found)}'


def _differences(found: Mapping[str, Any]) -> str:
    level, tests = f'{found["level"]:.0%}', found['tests']
    if not tests:
        return '<p>No two groups are large enough to be compared.</p>'
    alarms = found['alarms']
    verdict = f'{alarms} of {tests} differences hold' if alarms else (
        f'None of {tests} differences holds'
    )  # fmt: skip
    verdict += (
        f' at a level of {level} for all of them together. Groups of few patients can differ much '
        'without that.'
    )
    names = ['Figure', 'Difference from the rest', 'p', 'p, adjusted']
    rows = [_head('Group', names)]
    clearest = sorted(found['differences'], key=lambda row: (row['p_adjusted'], row['p']))[:_MOST]
    for row in clearest:
        gap = f'{row["difference"]:+.3f}'
        if row['low'] is not None:
            gap += f' ({row["low"]:+.3f} to {row["high"]:+.3f})'
        rows.append(_row(
            f'{row["grouping"]}: {row["group"]}', names,
            [METRIC_NAMES[row['figure']], gap, f'{row["p"]:.2g}', f'{row["p_adjusted"]:.2g}'],
        ))  # fmt: skip
    shown = f'<p class="note">The {len(clearest)} clearest; evaluation.json has all {tests}.</p>'
    return f'<p>{verdict}</p><table>{"".join(rows)}</table>{shown}'


def _head(first: str, names: list[str]) -> str:
    cells = ''.join(f'<th>{escape(name)}</th>' for name in (first, *names))
    return f'<tr class="head">{cells}</tr>'


def _row(name: str, labels: list[str], cells: list[str]) -> str:
    shown = ''.join(
        f'<td data-label="{escape(label)}">{escape(cell)}</td>'
        for label, cell in zip(labels, cells, strict=True)
    )
    return f'<tr><th>{escape(name)}</th>{shown}</tr>'


def _figure(metric: Mapping[str, Any]) -> str:
    return '–' if metric['value'] is None else value_and_interval(metric)


def _rest(of: Mapping[str, Any]) -> str:
    parts = []
    if of['not_shown']['n']:
        parts.append(f'{of["not_shown"]["n"]:,} images in groups too small to show')
    if of['unknown']:
        parts.append(f'{of["unknown"]:,} images without a value')
    return '; '.join(parts)
