"""report.html of an evaluated run: figures, pictures and limits on one page."""

import base64
import pathlib
from html import escape

from pneumojax.drawing.report_page import STYLE
from pneumojax.evaluation.wording import FIGURES, LIMITS, dropped, interval
from pneumojax.runs import layout
from pneumojax.runs.run import Run

_PICTURES = (
    ('curves.png', 'Learning, thresholds, ROC, Dice by size'),
    ('calibration.png', 'Calibration'),
    ('contact_sheet.png', 'Best, middling and worst cases, and the most suspicious negatives'),
)


def write(run: Run) -> pathlib.Path:
    """Writes the page from what the run holds; missing pictures are left out.

    Args:
      run: evaluated; where `config.init_from` is another run on this disk, that stage's learning
        curves are shown too.

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
    if config.data.phantoms.num_images:
        warning += ' <b>Trained on drawn phantoms: says nothing about real radiographs.</b>'
    run.write_text('report.html', f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
content="default-src &#x27;none&#x27;; img-src data:; style-src &#x27;unsafe-inline&#x27;">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(config.name)}: evaluation</title><style>{STYLE}
table {{ border-collapse: collapse; }} td, th {{ padding: 3px 22px 3px 0; text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }} .picture {{ max-width: 100%; background: #fff; }}
.picture[alt=Calibration] {{ width: 460px; }}
</style></head><body>
<h1>{escape(config.name)}</h1>
<p class="sub">{evaluation['n']} held-out images, {evaluation['n_positive']} with pneumothorax
&middot; {config.image_size} px &middot; step {evaluation['step']}</p>
<p class="warning">{warning}</p>
<h2>Figures, with 95 % intervals</h2><table>{_table(evaluation, variants)}</table>
<p class="note">Thresholds: {escape(str(evaluation.get('thresholds', '')))}. In use: at least
{rule['area']} px (at 1024 x 1024) reach {rule['top']:g}, then all that reach
{rule['bottom']:g}{dropped(rule)}.
</p>{pictures}
<h2>Limits</h2><ul>{''.join(f'<li>{escape(limit)}</li>' for limit in LIMITS)}</ul>
<p class="note">More in model_card.md, per_image.csv, evaluation.json and thresholds.json beside
this page.</p></body></html>
""")  # fmt: skip
    return run / 'report.html'


def _table(evaluation, variants):
    others = list(variants)[:-1]  # the last one is the run's own figure
    head = ''.join(f'<th>{escape(label)}</th>' for label in others)
    lines = [f'<tr><th></th>{head}<th>this run</th></tr>'] if others else []
    for key, label in FIGURES.items():
        cells = ''.join(f'<td>{interval(variants[name][key])}</td>' for name in others)
        lines.append(f'<tr><th>{label}</th>{cells}<td>{interval(evaluation[key])}</td></tr>')
    return ''.join(lines)


def _picture(path, title):
    if not path.is_file():
        return ''
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<h2>{escape(title)}</h2>'
        f'<img class="picture" alt="{escape(title)}" src="data:image/png;base64,{data}">'
    )
