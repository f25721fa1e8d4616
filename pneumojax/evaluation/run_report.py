"""report.html of an evaluated run: metrics, pictures and limits on one page."""

import base64
import pathlib
from html import escape
from typing import Any

from pneumojax.drawing.report_page import STYLE
from pneumojax.evaluation.sections.registry import SECTIONS
from pneumojax.evaluation.wording import (
    LIMITS,
    METRIC_NAMES,
    learned_from_phantoms,
    missing_positives,
    probability_sentence,
    rule_sentence,
    value_and_interval,
)
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system.text import visible

_PICTURES = (
    ('curves.png', 'Learning, thresholds, ROC, Dice by size'),
    ('image_level.png', 'Images with and without pneumothorax, and their probabilities'),
    ('froc.png', 'Lesions found by false marks (FROC)'),
    ('calibration.png', 'Calibration of pixel probabilities'),
    ('subgroups.png', 'Subgroups: Dice and AUC'),
    ('contact_sheet.png', 'Best, middle and worst cases, and the most suspicious negatives'),
)


def write(run: Run) -> pathlib.Path:
    """Writes the page from the files of a run; missing pictures are left out.

    Args:
      run: an evaluated run. Where `config.init_from` is another run on this disk, that stage's
        learning curves are shown too.

    Returns:
      The path of report.html.

    Raises:
      UsageError: the run was not evaluated.
    """
    config = layout.last_stage(run.config())
    evaluation, rule = run.read_json('evaluation.json'), run.read_json('thresholds.json')
    pictures = ''.join(_picture(run / name, title) for name, title in _PICTURES)
    if config.init_from:
        earlier = pathlib.Path(config.init_from) / 'curves.png'
        pictures += _picture(earlier, f'The earlier stage: {earlier.parent.name}')
    variants = evaluation.get('variants', {})
    warning = '<b>Not for diagnosis.</b> Research software; read the limits below.'
    warning += ''.join(f' <b>{escape(text)}</b>' for text in missing_positives(evaluation))
    if learned_from_phantoms(config, evaluation):
        warning += ' <b>Trained on drawn phantoms: this says nothing about real radiographs.</b>'
    sub = (
        f'{evaluation["n"]} held-out images, {evaluation["n_positive"]} with pneumothorax &middot; '
        f'{config.image_size} px &middot; step {evaluation["step"]}'
    )
    run.write_text('report.html', _page(config.name, sub, warning, f"""
<h2>Results, with 95 % intervals</h2><table>{_table(evaluation, variants)}</table>
<p class="note">Thresholds {escape(evaluation.get('thresholds', 'not stated'))}. For use on other
images: {escape(rule_sentence(rule))} {probability_sentence(rule.get('probability'))}
</p>{_sections(evaluation)}{pictures}""",
        'model_card.md, per_image.csv, evaluation.json and thresholds.json',
    ))  # fmt: skip
    return run / 'report.html'


def write_external(folder: Run, name: str) -> None:
    """Writes the page of an evaluation on images from elsewhere, from the files of its folder.

    Args:
      folder: with evaluation.json, and those of `_PICTURES` that there are.
      name: of the networks.
    """
    evaluation = folder.read_json('evaluation.json')
    external = evaluation['external']
    warning = '<b>Not for diagnosis.</b> Research software; read the limits below.'
    if any(network.get('phantoms') for network in external['networks']):
        warning += ' <b>Trained on drawn phantoms: this says nothing about real radiographs.</b>'
    left_out = external['left_out']
    facts = {
        'Folder': external['input'],
        'Its images and masks': f'SHA-256 {external["digest"]}',
        'Networks': '; '.join(f'{n["name"]}, step {n["step"]}, weights {n["digest"]}'
                              for n in external['networks']),
        'Rule': rule_sentence(external['rule']),
        'Probability': probability_sentence(external['probability']),
        'Chosen on these images': 'nothing',
        'Left out, as trained or calibrated on': f'{left_out["same_image_id"]} by ImageId, '
                                                 f'{left_out["same_file"]} more by content',
        'That was compared with': external['compared_with'],
        'Patients': external['patients'],
    }  # fmt: skip
    rows = ''.join(
        f'<tr><th>{escape(key)}</th><td>{escape(visible(str(value)))}</td></tr>'
        for key, value in facts.items()
    )
    sub = (
        f'{evaluation["n"]} images from elsewhere, {evaluation["n_positive"]} with pneumothorax '
        f'&middot; {escape(name)}'
    )
    folder.write_text(
        'report.html',
        _page(
            f'{name}: external evaluation',
            sub,
            warning,
            f"""
<h2>Results, with 95 % intervals</h2><table>{_table(evaluation, {})}</table>
<h2>Of what</h2><table>{rows}</table>{_sections(evaluation)}
{''.join(_picture(folder / name, title) for name, title in _PICTURES)}""",
            'per_image.csv and evaluation.json',
        ),
    )


def _page(title: str, sub: str, warning: str, body: str, files: str) -> str:
    """A whole page; all but the title is HTML."""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
content="default-src &#x27;none&#x27;; img-src data:; style-src &#x27;unsafe-inline&#x27;">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}
table {{ border-collapse: collapse; }} td, th {{ padding: 3px 22px 3px 0; text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }} .picture {{ max-width: 100%; background: #fff; }}
.picture[alt^=Calibration] {{ width: 460px; }}
@media (max-width: 700px) {{ table, tbody, tr, th, td {{ display: block; padding: 0; }}
  tr {{ padding: 6px 0; border-bottom: 1px solid var(--line); }} tr.head {{ display: none; }}
  td {{ overflow-wrap: anywhere; }}
  td[data-label]::before {{ content: attr(data-label) ": "; color: var(--faint); }} }}
</style></head><body>
<h1>{escape(title)}</h1>
<p class="sub">{sub}</p>
<p class="warning">{warning}</p>{body}
<h2>Limits</h2><ul>{''.join(f'<li>{escape(limit)}</li>' for limit in LIMITS)}</ul>
<p class="note">For more, see {files} beside this page.</p></body></html>
"""


def _table(evaluation: dict[str, Any], variants: dict[str, Any]) -> str:
    others = list(variants)[:-1]  # the last one is the run's own
    head = ''.join(f'<th>{escape(label)}</th>' for label in others)
    lines = [f'<tr class="head"><th></th>{head}<th>this run</th></tr>'] if others else []
    names = [f' data-label="{escape(name)}"' for name in (*others, 'this run')] if others else ['']
    for key, label in METRIC_NAMES.items():
        shown = [variants[name][key] for name in others] + [evaluation[key]]
        cells = ''.join(
            f'<td{name}>{value_and_interval(metric)}</td>'
            for name, metric in zip(names, shown, strict=True)
        )
        lines.append(f'<tr><th>{label}</th>{cells}</tr>')
    return ''.join(lines)


def _sections(evaluation: dict[str, Any]) -> str:
    """The metrics of each section, with how they are defined; older runs have none."""
    parts = []
    for section in SECTIONS:
        found = evaluation.get(section.key)
        if not found:
            continue
        rows = ''.join(
            f'<tr><th>{escape(label)}</th><td>{value_and_interval(found[name])}</td></tr>'
            for name, label in section.names.items()
            if name in found
        )
        parts.append(
            f'<h2>{escape(section.title)}</h2>'
            + (f'<table>{rows}</table>' if rows else '')
            + section.html(found)
            + f'<p class="note">{escape(section.described(found))}</p>'
        )
    return ''.join(parts)


def _picture(path: pathlib.Path, title: str) -> str:
    if not path.is_file():
        return ''
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<h2>{escape(title)}</h2>'
        f'<img class="picture" alt="{escape(title)}" src="data:image/png;base64,{data}">'
    )
