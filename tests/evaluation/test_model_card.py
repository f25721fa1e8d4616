"""What is written about a run: its card and its page, from its files alone."""

import html
import json
import re

import numpy as np
import pytest

from pneumojax.drawing.overlay import write_png
from pneumojax.errors import UsageError
from pneumojax.evaluation import model_card, run_report, thresholds
from pneumojax.evaluation.wording import METRIC_NAMES
from tests.narrow_pages import DESK, PHONE, assert_readable, show
from tests.tiny_runs import write_run

EVALUATION = {
    **{
        name: {'value': 0.1 + i / 10, 'low': 0.05 + i / 10, 'high': 0.15 + i / 10}
        for i, name in enumerate(METRIC_NAMES)
    },
    'n': 57, 'n_positive': 13, 'step': 7, 'thresholds': 'of the other half',
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    run = write_run(tmp_path / 'run', rule=(0.625, 321, 0.25))
    run.write_json('evaluation.json', EVALUATION)
    run.write_json('split.json', {'train': ['a'] * 211, 'validation': ['b'] * 57})
    return run


def test_a_card_states_what_the_files_hold(run):
    path = model_card.write(run)
    assert path == run / 'model_card.md'
    text = path.read_text()
    for words in (
        '211 images trained on, 57 held out', '57 held-out images of patients not trained on, 13',
        '321', '0.625', '0.25', 'width 4', '32 x 32 px', 'step 7', 'last',
    ):  # fmt: skip
        assert words in text
    values = re.findall(r'^\| .* \| (0\.\d+) \((0\.\d+) to (0\.\d+)\) \|$', text, re.MULTILINE)
    expected = [f'{EVALUATION[name][key]:.3f}' for name in METRIC_NAMES for key in EVALUATION[name]]
    assert [number for row in values for number in row] == expected
    assert 'phantoms' not in text
    assert str(run.path) not in text


def test_a_card_says_when_every_image_is_left_empty(run):
    stated = run.read_json('thresholds.json')
    for area, empty in ((stated['reference_pixels'], False), (thresholds.EMPTY.area, True)):
        run.write_json('thresholds.json', stated | {'area': area})
        assert ('Every image is left empty' in model_card.make(run)) == empty
        assert (f'fewer than {area:,} pixels' in model_card.make(run)) != empty


def test_a_card_says_when_there_were_no_patients(run):
    config = run.config()
    config.data.phantoms.num_images = 268
    (run / 'config.json').unlink()
    from pneumojax import config as config_lib

    run.write_text('config.json', config_lib.to_json(config))
    assert 'Drawn phantoms, no radiographs' in model_card.make(run)
    run_report.write(run)
    assert 'drawn phantoms' in (run / 'report.html').read_text()


@pytest.mark.slow
def test_the_report_can_be_read_on_a_phone(run, browser):
    figures = {name: EVALUATION[name] for name in METRIC_NAMES}
    variants = dict.fromkeys(('last weights', '+ SWA', '+ TTA'), figures)
    run.write_json('evaluation.json', EVALUATION | {'variants': variants})
    for name, shape in (('curves', (1200, 1700, 3)), ('calibration', (600, 700, 3))):
        write_png(run / f'{name}.png', np.full(shape, 128, np.uint8))
    page = run_report.write(run)
    first = EVALUATION['mean_dice']
    value = f'{first["value"]:.3f} ({first["low"]:.3f} to {first["high"]:.3f})'
    for width in (PHONE, DESK):
        assert_readable(show(browser, page, width), width)
        tables = browser.find_elements('css selector', 'table')
        assert len(tables) == 1
        assert tables[0].text.count(value) >= 3
        cell = 'getComputedStyle(document.querySelector("td"), "::before").content'
        assert ('last weights' in browser.execute_script(f'return {cell}')) == (width == PHONE)
        widths = browser.execute_script('return Array.from(document.images, i => i.offsetWidth)')
        assert len(widths) == 2
        assert max(widths) <= width


def test_phantoms_that_an_earlier_run_drew_are_no_patients_either(run):
    run.write_json('evaluation.json', EVALUATION | {'phantoms': True})
    assert 'Drawn phantoms, no radiographs' in model_card.make(run)
    run_report.write(run)
    assert 'drawn phantoms' in (run / 'report.html').read_text()


@pytest.mark.parametrize(
    ('held_out', 'trained', 'expected'),
    [(13, 5, []), (13, None, []), (0, 5, ['held-out']), (13, 0, ['trained on']),
     (0, 0, ['trained on', 'held-out'])],
)  # fmt: skip
def test_missing_positives_are_said(run, held_out, trained, expected):
    more = {} if trained is None else {'trained_on': {'n': 211, 'n_positive': trained}}
    run.write_json('evaluation.json', EVALUATION | {'n_positive': held_out} | more)
    pages = [model_card.write(run).read_text(), run_report.write(run).read_text()]
    for which in ('trained on', 'held-out'):
        sentence = f'None of the {"images " * (which == "trained on")}{which}'
        assert [sentence in page for page in pages] == [which in expected] * 2


def test_a_name_is_text_in_the_card(run):
    """As an independent reader of Markdown renders it."""
    markdown = pytest.importorskip('markdown_it').MarkdownIt('commonmark').enable('table')
    name = '<img src=x onerror=alert(1)> [a](javascript:b) *c* `d` $e$ &lt; \u202eback \nline'
    config = json.loads((run / 'config.json').read_text())
    config['model']['pretrained'] = '/x/_y_<b>.pth'
    run.write_json('config.json', config | {'name': name})
    rendered = markdown.render(model_card.write(run).read_text(encoding='utf-8'))
    shown = name.replace('\u202e', '\\u202e').replace('\n', '\\n')
    assert f'<h1>Model card: {html.escape(shown, quote=False)}</h1>' in rendered
    assert '(_y_&lt;b&gt;.pth)' in rendered
    assert not re.search(r'<img|<a |<em>|<b>', rendered)


def test_runs_that_were_not_evaluated(run):
    (run / 'evaluation.json').unlink()
    for write in (model_card.write, run_report.write):
        with pytest.raises(UsageError, match='--mode=evaluate'):
            write(run)


def test_the_page_holds_the_pictures_that_are_there(run):
    variants = {'last weights': EVALUATION, 'final': EVALUATION}
    run.write_json('evaluation.json', EVALUATION | {'variants': variants})
    write_png(run / 'curves.png', np.zeros((4, 4), np.uint8))
    text = run_report.write(run).read_text()
    assert text.count('data:image/png') == 1
    assert text.count('0.100 (0.050 to 0.150)') == 2
    assert not re.search(r'https?:|<script', text)
