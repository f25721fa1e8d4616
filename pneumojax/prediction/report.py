"""report.html: what a prediction found, on one page that needs nothing but itself and the overlays.

Everything that comes from files (names, header texts) is escaped, and a content policy forbids any
script but the page's own and any request.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from pneumojax.data.files.inputs import printable
from pneumojax.drawing import overlay
from pneumojax.drawing.report_page import SCRIPT, STYLE
from pneumojax.evaluation.wording import LIMITS, METRIC_NAMES, rule_sentence, value_and_interval
from pneumojax.system.atomic import replacing

THUMBNAIL = 96  # pixels of its longer side
_KINDS = {'all': 'All', 'marked': 'Marked', 'clear': 'Not marked', 'other': 'Not predicted'}


def thumbnail(image: np.ndarray, mask: np.ndarray) -> str:
    """A small overlay as a data URI.

    Args:
      image: uint8 [H, W], grey.
      mask: [H, W], nonzero inside.
    """
    picture = overlay.overlay(image, mask, side=THUMBNAIL)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 75]
    _, code = cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    return 'data:image/jpeg;base64,' + base64.b64encode(code.tobytes()).decode()


def write(
    path: str | os.PathLike,
    rows: Iterable[Mapping[str, Any]],
    *,
    counts: Mapping[str, int],
    runs: Sequence[Mapping[str, Any]],
    rule: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    version: str,
    overlays: bool,
    heatmaps: bool,
    show_names: bool,
) -> None:
    """Writes the page, row by row; the file appears whole or not at all.

    Args:
      path: of the page; overlays and masks are linked relative to it.
      rows: one per input file, see `pneumojax.prediction.predict`.
      counts: of rows 'ok', 'marked', 'skipped', 'error'.
      runs: which weights: 'name', 'step', 'weights', 'image_size', 'flips', 'phantoms' each.
      rule: 'top', 'area', 'bottom' of the thresholds.
      evaluation: evaluation.json of the first run, or None.
      version: of this package.
      overlays, heatmaps: whether there are such files to link.
      show_names: whether rows hold 'patient', to be shown.
    """
    with replacing(path) as unfinished, open(unfinished, 'w', encoding='utf-8') as file:
        file.write(_head(counts, runs, rule, evaluation, version, show_names))
        for order, row in enumerate(rows):
            file.write(_row(order, row, overlays, heatmaps, show_names))
        file.write(
            '</tbody></table>\n<button id="more" type="button" hidden>Show 1,000 more</button>\n'
            f'<script>{SCRIPT}</script>\n</body></html>\n'
        )


def _head(counts, runs, rule, evaluation, version, show_names):
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'"
    names = ', '.join(f'{run["name"]} (step {run["step"]})' for run in runs)
    tiles = ''.join(
        f'<div><b>{counts.get(key, 0):,}</b>{label}</div>'
        for key, label in (
            ('ok', 'radiographs'), ('marked', 'with a marked area'),
            ('skipped', 'other files, skipped'), ('error', 'could not be read'),
        )
    )  # fmt: skip
    warning = '<b>Not for diagnosis.</b> Research software; read the limits below.'
    if any(run.get('phantoms') for run in runs):
        warning += (
            ' <b>This network was trained on drawn phantoms: '
            'on real radiographs its output means nothing.</b>'
        )
    filters = ''.join(
        f'<button type="button" data-filter="{key}" aria-pressed="{str(key == "all").lower()}">'
        f'{label}</button>'
        for key, label in _KINDS.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pneumothorax predictions</title>
<style>{STYLE}</style>
<noscript><style>#images .unsorted tr {{ display: table-row !important; }}</style></noscript>
</head><body>
<h1>Pneumothorax predictions</h1>
<p class="sub">{escape(names)} &middot; pneumojax {escape(version)}</p>
<p class="warning">{warning}</p>
<div class="tiles">{tiles}</div>
<details><summary>Network, thresholds, figures and limits</summary>
<h2>Network</h2><table>{''.join(map(_run, runs))}</table>
<h2>Thresholds</h2><p>{escape(rule_sentence(rule))}</p>
<h2>Figures on held-out images</h2>{_figures(evaluation)}
<h2>Limits</h2><ul>{''.join(f'<li>{escape(limit)}</li>' for limit in LIMITS)}</ul>
</details>
<div class="tools">{filters}<input id="search" type="search" placeholder="Find a name"
aria-label="Find a name"><span id="shown"></span></div>
<table id="images">
<colgroup><col style="width:122px"><col>{'<col style="width:150px">' * show_names}
<col style="width:134px"><col style="width:118px"><col style="width:130px"><col style="width:27%">
</colgroup>
<thead><tr><th class="plain">Overlay</th>{_th('name', 'Image')}\
{_th('patient', 'Patient') if show_names else ''}\
{_th('probability', 'Probability', 'number')}{_th('px', 'Area, px', 'number')}\
{_th('mm2', 'Area, mm²', 'number')}{_th('status', 'Status')}</tr></thead><tbody class="unsorted">
"""


def _th(key, label, kind=''):
    return (
        f'<th scope="col" data-key="{key}" class="{kind}"><button type="button">{label}'
        '</button></th>'
    )


def _run(run):
    flips = ' and '.join(run['flips'])
    views = f'image and its {flips} flip' if flips else 'image alone'
    return (
        f'<tr><th>{escape(str(run["name"]))}</th><td>step {run["step"]}, '
        f'{"averaged" if run["weights"] == "average" else "last"} weights, '
        f'{run["image_size"]} px, {escape(views)}</td></tr>'
    )


def _figures(evaluation):
    if not evaluation:
        return '<p>The run holds no evaluation.</p>'
    lines = ''.join(
        f'<tr><th>{label}</th><td>{value_and_interval(evaluation[key])}</td></tr>'
        for key, label in METRIC_NAMES.items()
        if key in evaluation
    )
    return (
        f'<p>{evaluation.get("n", "?")} images, {evaluation.get("n_positive", "?")} of them with '
        f'pneumothorax; 95 % intervals.</p><table>{lines}</table>'
    )


def _row(order, row, overlays, heatmaps, show_names):
    ok = row['status'] == 'ok'
    kind = 'other' if not ok else 'marked' if row['area_px'] else 'clear'
    name, shown = escape(row['ImageId']), printable(row['file'])
    data = {
        'order': order,
        'kind': kind,
        'name': f'{row["ImageId"]} {shown}',
        'patient': row.get('patient') if show_names else None,
        'probability': row['probability'],
        'px': row['area_px'],
        'mm2': row['area_mm2'],
        'status': f'{row["status"]} {row["reason"]}',
    }
    attributes = ''.join(
        f' data-{key}="{escape(str(value))}"' for key, value in data.items() if value is not None
    )
    cells = [
        _picture(row, overlays),
        f'<div class="name">{name}</div>'
        f'<div class="file" title="{escape(shown)}">{escape(shown)}</div>{_links(row, heatmaps)}',
        *([escape(row.get('patient') or '')] if show_names else []),
    ]
    numbers = [
        _probability(row['probability']),
        f'{row["area_px"]:,}' if ok else '',
        f'{row["area_mm2"]:,.0f}' if row['area_mm2'] is not None else '',
    ]
    status = 'predicted' if ok else row['status']
    last = (
        f'<span class="{escape(row["status"])}">{escape(status)}</span>'
        f'<div class="note">{escape(row["reason"])}</div>'
    )
    return (
        f'<tr{attributes}>'
        + ''.join(f'<td>{cell}</td>' for cell in cells)
        + ''.join(f'<td class="number">{cell}</td>' for cell in numbers)
        + f'<td>{last}</td></tr>\n'
    )


def _picture(row, overlays):
    if 'thumbnail' not in row:
        return ''
    name = row['ImageId']
    image = (
        f'<img src="{escape(row["thumbnail"])}" alt="overlay of {escape(name)}" '
        'loading="lazy" decoding="async">'
    )
    return f'<a href="overlays/{quote(name)}.png">{image}</a>' if overlays else image


def _links(row, heatmaps):
    if row['status'] != 'ok':
        return ''
    name = quote(row['ImageId'])
    links = [('mask', f'masks/{name}.png')]
    links += [('heat map', f'heatmaps/{name}.png')] if heatmaps else []
    links += [('SEG', f'seg/{name}.dcm')] if row.get('seg') else []
    joined = ' &middot; '.join(f'<a href="{link}">{text}</a>' for text, link in links)
    return f'<div class="links">{joined}</div>'


def _probability(value):
    if value is None:
        return ''
    width = f'{100 * min(max(value, 0), 1):.0f}%'
    return f'{value:.3f}<div class="bar"><i style="width:{width}"></i></div>'
