"""What is written about a run: its card and its page, from its files alone."""

import html
import json
import re

import numpy as np
import pytest

from pneumojax.drawing.overlay import write_png
from pneumojax.errors import UsageError
from pneumojax.evaluation import model_card, run_facts, run_report, thresholds
from pneumojax.evaluation.checklists import reporting
from pneumojax.evaluation.sections.section import Section
from pneumojax.evaluation.wording import METRIC_NAMES
from tests.narrow_pages import DESK, PHONE, assert_readable, show
from tests.tiny_runs import write_run

EVALUATION = {
    **{
        name: {'value': 0.1 + i / 10, 'low': 0.05 + i / 10, 'high': 0.15 + i / 10}
        for i, name in enumerate(METRIC_NAMES)
    },
    'n': 57, 'n_positive': 13, 'step': 7, 'thresholds': 'of the other half',
    'trained_on': {'n': 211, 'n_positive': 40},
    'data': {'masks': 'files', 'split': 'drawn', 'patients': {'trained_on': 99, 'held_out': 31}},
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
    report = EVALUATION | {'n_positive': held_out}
    report['trained_on'] = {'n': 211, 'n_positive': trained}
    if trained is None:
        del report['trained_on']
    run.write_json('evaluation.json', report)
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


# --- the head ----------------------------------------------------------------------------------


def read_head(text):
    """The head as huggingface_hub reads it."""
    hub = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed')
    return hub.ModelCard(text).data


def test_hugging_face_reads_the_head(run):
    path = model_card.write(run)
    data = read_head(path.read_text(encoding='utf-8'))
    assert (data.license, data.library_name) == ('unknown', 'pneumojax')
    assert data.pipeline_tag == 'image-segmentation'
    assert data.model_name == 'tiny0'
    results = {result.metric_type: result for result in data.eval_results}
    assert {name: r.metric_value for name, r in results.items()} == {
        name: EVALUATION[name]['value'] for name in METRIC_NAMES
    }
    assert {name: r.metric_name for name, r in results.items()} == METRIC_NAMES
    assert {r.verified for r in results.values()} == {False}
    assert {r.task_type for r in results.values()} == {'image-segmentation'}
    assert {r.dataset_name for r in results.values()} == {
        '57 held-out chest radiographs, 13 with pneumothorax'
    }
    # What the hub's library writes of it is the same again.
    from huggingface_hub import ModelCardData, metadata_load

    written = metadata_load(path)
    assert ModelCardData(**written).to_dict() == written


def test_a_head_says_phantoms(run):
    assert 'trained-on-phantoms' not in read_head(model_card.make(run)).tags
    run.write_json('evaluation.json', EVALUATION | {'phantoms': True})
    data = read_head(model_card.make(run))
    assert 'trained-on-phantoms' in data.tags
    assert all('no radiographs' in result.dataset_name for result in data.eval_results)


def test_a_head_holds_any_name_and_leaves_out_what_is_undefined(run):
    config = json.loads((run / 'config.json').read_text())
    name = 'a: "b" \'c\' #d [e] {f} --- é \u2028 <g>\n- h'
    run.write_json('config.json', config | {'name': name})
    undefined = {'auc': {'value': None, 'low': None, 'high': None}}
    run.write_json('evaluation.json', EVALUATION | undefined)
    data = read_head(model_card.make(run))
    assert data.model_name == name.replace('\n', '\\n').replace('\u2028', '\\u2028')
    assert {r.metric_type for r in data.eval_results} == METRIC_NAMES.keys() - {'auc'}


def test_sections_appear_by_themselves(run, monkeypatch):
    section = Section(
        'extra', 'More figures', 'How they are defined.', {'one': None, 'two': None},
        {'one': 'First figure', 'two': 'Second figure'},
    )  # fmt: skip
    monkeypatch.setattr(run_facts, 'SECTIONS', (section,))
    assert 'More figures' not in model_card.make(run)  # an older run has no such section
    figures = {'one': {'value': 0.25, 'low': 0.125, 'high': 0.5},
               'two': {'value': None, 'low': None, 'high': None}, 'curve': [1, 2]}  # fmt: skip
    run.write_json('evaluation.json', EVALUATION | {'extra': figures})
    text = model_card.make(run)
    assert '### More figures\n\n| metric | value (95 % interval) |\n|---|---|\n' in text
    assert '| First figure | 0.250 (0.125 to 0.500) |\n| Second figure | not defined |' in text
    assert 'How they are defined.' in text
    values = {r.metric_type: r.metric_value for r in read_head(text).eval_results}
    assert values['extra.one'] == 0.25
    assert 'extra.two' not in values
    assert 'More figures: First figure' in reporting.make(run)
    for broken in ({'one': 7}, {'one': {'value': 'x'}}, [], 'x'):
        run.write_json('evaluation.json', EVALUATION | {'extra': broken})
        with pytest.raises(UsageError, match=r'evaluation\.json.*extra\.one'):
            model_card.make(run)


def test_what_is_known_of_patients_is_said_and_no_more(run):
    data = EVALUATION['data']
    for patients, words, unseen in (
        ({'trained_on': 9, 'held_out': 3}, 'no patient is on both sides', True),
        (None, 'names no patients, so images of one may be on both sides', False),
    ):
        run.write_json('evaluation.json', EVALUATION | {'data': data | {'patients': patients}})
        text = model_card.make(run)
        assert words in text
        assert ('of patients not trained on' in text) == unseen
    older = {key: value for key, value in EVALUATION.items() if key != 'data'}
    run.write_json('evaluation.json', older)
    assert 'no patient that the data set names is on both sides' in model_card.make(run)
