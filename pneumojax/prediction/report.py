"""report.html: the results of a prediction on one page, which needs only the files beside it.

Everything that comes from input files (names, header texts) is escaped, and a content security
policy forbids all scripts but the page's own, and all requests.
"""

import base64
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from pneumojax.drawing import overlay
from pneumojax.drawing.report_page import SCRIPT, STYLE
from pneumojax.evaluation.wording import LIMITS, METRIC_NAMES, rule_sentence, value_and_interval
from pneumojax.prediction.journal import ResultRow
from pneumojax.system.atomic import replacing
from pneumojax.system.text import visible

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


@dataclasses.dataclass(frozen=True)
class About:
    """What the page says about the whole prediction.

    Attributes:
      counts: of rows 'ok', 'marked', 'skipped', 'error'.
      runs: which weights: 'name', 'step', 'weights', 'image_size', 'flips', 'phantoms' of each run.
      rule: 'top', 'area', 'bottom' of the thresholds.
      probability: what the images' probabilities mean, in a sentence.
      evaluation: content of the first run's evaluation.json, or None.
      version: of this package.
      show_names: whether to show 'patient' of the rows.
    """

    counts: Mapping[str, int]
    runs: Sequence[Mapping[str, Any]]
    rule: Mapping[str, Any]
    probability: str
    evaluation: Mapping[str, Any] | None
    version: str
    show_names: bool = False


def write(path: str | os.PathLike, rows: Iterable[ResultRow], about: About) -> None:
    """Writes the page row by row; the file appears complete or not at all.

    Args:
      path: of the page; pictures and masks are linked relative to it.
      rows: one per input file, see `prediction.predict`.
      about: the rest of the page.
    """
    with replacing(path) as unfinished, open(unfinished, 'w', encoding='utf-8') as file:
        file.write(_head(about))
        for order, row in enumerate(rows):
            file.write(_row(order, row, about.show_names))
        file.write(
            '</tbody></table>\n<button id="more" type="button" hidden>Show 1,000 more</button>\n'
            f'<script>{SCRIPT}</script>\n</body></html>\n'
        )


def _head(about: About) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'"
    names = ', '.join(f'{run["name"]} (step {run["step"]})' for run in about.runs)
    tiles = ''.join(
        f'<div><b>{about.counts.get(key, 0):,}</b>{label}</div>'
        for key, label in (
            ('ok', 'radiographs'), ('marked', 'with a marked area'),
            ('skipped', 'other files, skipped'), ('error', 'could not be read'),
        )
    )  # fmt: skip
    warning = '<b>Not for diagnosis.</b> Research software; read the limits below.'
    if any(run.get('phantoms') for run in about.runs):
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
<noscript><style>#images .unsorted tr {{ display: table-row !important; }}
@media (max-width: 700px) {{ #images .unsorted tr {{ display: grid !important; }} }}
</style></noscript>
</head><body>
<h1>Pneumothorax predictions</h1>
<p class="sub">{escape(names)} &middot; pneumojax {escape(about.version)}</p>
<p class="warning">{warning}</p>
<div class="tiles">{tiles}</div>
<details><summary>Network, thresholds, figures and limits</summary>
<h2>Network</h2><table>{''.join(map(_run, about.runs))}</table>
<h2>Thresholds</h2><p>{escape(rule_sentence(about.rule))}</p>
<h2>Probability</h2><p>{escape(about.probability)}</p>
<h2>Figures on held-out images</h2>{_figures(about.evaluation)}
<h2>Limits</h2><ul>{''.join(f'<li>{escape(limit)}</li>' for limit in LIMITS)}</ul>
</details>
<div class="tools">{filters}<input id="search" type="search" placeholder="Find a name"
aria-label="Find a name"><span id="shown"></span></div>
<table id="images">
<colgroup><col style="width:122px"><col>{'<col style="width:150px">' * about.show_names}
<col style="width:134px"><col style="width:118px"><col style="width:130px"><col style="width:27%">
</colgroup>
<thead><tr><th class="plain">Overlay</th>{_th('name', 'Image')}\
{_th('patient', 'Patient') if about.show_names else ''}\
{_th('probability', 'Probability', 'number')}{_th('px', 'Area, px', 'number')}\
{_th('mm2', 'Area, mm²', 'number')}{_th('status', 'Status')}</tr></thead><tbody class="unsorted">
"""


def _th(key: str, label: str, kind: str = '') -> str:
    return (
        f'<th scope="col" data-key="{key}" class="{kind}"><button type="button">{label}'
        '</button></th>'
    )


def _run(run: Mapping[str, Any]) -> str:
    flips = ' and '.join(run['flips'])
    views = f'image and its {flips} flip' if flips else 'image alone'
    return (
        f'<tr><th>{escape(str(run["name"]))}</th><td>step {run["step"]}, '
        f'{"averaged" if run["weights"] == "average" else "last"} weights, '
        f'{run["image_size"]} px, {escape(views)}</td></tr>'
    )


def _figures(evaluation: Mapping[str, Any] | None) -> str:
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


def _row(order: int, row: ResultRow, show_names: bool) -> str:
    ok = row['status'] == 'ok'
    kind = 'other' if not ok else 'marked' if row['area_px'] else 'clear'
    name, shown, reason = escape(row['ImageId']), visible(row['file']), visible(row['reason'])
    data = {
        'order': order,
        'kind': kind,
        'name': f'{row["ImageId"]} {shown}',
        'patient': row.get('patient') if show_names else None,
        'probability': row['probability'],
        'px': row['area_px'],
        'mm2': row['area_mm2'],
        'status': f'{row["status"]} {reason}',
    }
    attributes = ''.join(
        f' data-{key}="{escape(str(value))}"' for key, value in data.items() if value is not None
    )
    cells = [
        f'<div class="name">{name}</div>'
        f'<div class="file" title="{escape(shown)}">{escape(shown)}</div>{_links(row)}',
        *([escape(visible(row.get('patient') or ''))] if show_names else []),
    ]
    numbers = {
        'Probability': _probability(row['probability']),
        'Area, px': f'{row["area_px"]:,}' if ok else '',
        'Area, mm²': f'{row["area_mm2"]:,.0f}' if row['area_mm2'] is not None else '',
    }
    status = 'predicted' if ok else row['status']
    last = (
        f'<span class="{escape(row["status"])}">{escape(status)}</span>'
        f'<div class="note">{escape(reason)}</div>'
    )
    return (
        f'<tr{attributes}><td class="picture">{_picture(row)}</td>'
        + ''.join(f'<td>{cell}</td>' for cell in cells)
        + ''.join(
            f'<td class="number" data-label="{label}">{cell}</td>'
            for label, cell in numbers.items()
        )
        + f'<td>{last}</td></tr>\n'
    )


def _picture(row: ResultRow) -> str:
    if 'thumbnail' not in row:
        return ''
    image = (
        f'<img src="{escape(row["thumbnail"])}" alt="overlay of {escape(row["ImageId"])}" '
        'loading="lazy" decoding="async">'
    )
    large = f'overlays/{row["ImageId"]}.png'
    return f'<a href="{quote(large)}">{image}</a>' if large in row['written'] else image


def _links(row: ResultRow) -> str:
    name = row['ImageId']
    candidates = (
        ('mask', f'masks/{name}.png'),
        ('heat map', f'heatmaps/{name}.png'),
        ('SEG', f'seg/{name}.dcm'),
    )
    links = ' &middot; '.join(
        f'<a href="{quote(path)}">{text}</a>'
        for text, path in candidates
        if path in row.get('written', ())
    )
    return f'<div class="links">{links}</div>' if links else ''


def _probability(value: float | None) -> str:
    if value is None:
        return ''
    width = f'{100 * min(max(value, 0), 1):.0f}%'
    return f'{value:.3f}<div class="bar"><i style="width:{width}"></i></div>'
