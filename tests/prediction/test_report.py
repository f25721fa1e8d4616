"""report.html: its text, and what a browser makes of it."""

import dataclasses
import html.parser
import pathlib
import re

import numpy as np
import pytest

from pneumojax.drawing import overlay
from pneumojax.evaluation.rules import Rule
from pneumojax.prediction import report
from tests.narrow_pages import DESK, PHONE, assert_readable, show

RULE = dataclasses.asdict(Rule(top=0.7, area=800, bottom=0.3))
RUNS = [{'name': 'r<b>', 'step': 9, 'weights': 'average', 'image_size': 64, 'flips': [],
         'phantoms': True}]  # fmt: skip
FIGURE = {'value': 0.8123, 'low': 0.79, 'high': 0.83}
EVALUATION = {'mean_dice': FIGURE, 'auc': {'value': None, 'low': None, 'high': None}, 'n': 50,
              'n_positive': 12}  # fmt: skip
EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def row(i, status='ok', **more):
    ok = status == 'ok'
    image, mask = np.full((40, 50), 90, np.uint8), np.zeros((40, 50), np.uint8)
    mask[5 : 5 + i, 5:20] = 1
    predicted = {
        'thumbnail': report.thumbnail(image, mask),
        'written': dict.fromkeys([f'overlays/im_{i}.png', f'masks/im_{i}.png', f'seg/im_{i}.dcm']),
    }
    return {
        'file': f'sub/im {i}.dcm', 'ImageId': f'im_{i}', 'status': status, 'reason': '',
        'probability': (i * 37 % 10) / 10 if ok else None, 'area_px': 15 * i if ok else None,
        'area_mm2': 1.5 * i if ok and i % 2 else None,
        **(predicted if ok else {}), **more,
    }  # fmt: skip


def write(path, rows, **more):
    about = {
        'counts': {'ok': 1234}, 'runs': RUNS, 'rule': RULE, 'evaluation': EVALUATION,
        'version': '1', 'probability': 'It is calibrated.', **more,
    }  # fmt: skip
    report.write(path, rows, report.About(**about))
    return path.read_text(encoding='utf-8')


class Page(html.parser.HTMLParser):
    """Tags with attributes, and whether every tag was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'img', 'input', 'br', 'col'):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def test_text_from_files_is_text(tmp_path):
    rows = [row(1, file=EVIL, reason=EVIL, patient=EVIL), row(2, 'error', file='e', reason=EVIL)]
    text = write(tmp_path / 'r.html', rows, show_names=True)
    page = Page(text)
    assert [tag for tag, _ in page.tags].count('script') == 1
    assert not [a for _, a in page.tags if any(name.startswith('on') for name in a)]
    assert all(a['src'].startswith('data:image/jpeg') for tag, a in page.tags if tag == 'img')
    assert text.count('&lt;script&gt;alert(2)') >= 4


def test_it_asks_for_nothing_from_elsewhere(tmp_path):
    text = write(tmp_path / 'r.html', [row(1)])
    assert not re.search(r'https?:|//[a-z]|@import|url\(', text)
    assert 'default-src &#x27;none&#x27;' in text
    links = [a['href'] for tag, a in Page(text).tags if tag == 'a']
    assert links == ['overlays/im_1.png', 'masks/im_1.png', 'seg/im_1.dcm']


def test_names_appear_when_asked_for_only(tmp_path):
    assert 'Doe' not in write(tmp_path / 'a.html', [row(1, patient='Doe')])
    assert 'Doe' in write(tmp_path / 'b.html', [row(1, patient='Doe')], show_names=True)


def test_what_it_states(tmp_path):
    text = write(tmp_path / 'r.html', [row(1)])
    for words in (
        'Not for diagnosis', 'drawn phantoms', '0.812 (0.790 to 0.830)', 'not defined',
        'fewer than 800 pixels', '1,234', 'r&lt;b&gt;', 'calibrated on the held-out images',
    ):  # fmt: skip
        assert words in text
    assert 'drawn phantoms' not in write(tmp_path / 's.html', [], runs=[])
    assert 'no evaluation' in write(tmp_path / 't.html', [], evaluation=None)


def test_thumbnails_are_small():
    image = np.random.default_rng(0).integers(0, 256, (3000, 2000)).astype(np.uint8)
    assert len(report.thumbnail(image, image > 250)) < 16_000


@pytest.mark.slow
def test_a_browser_sorts_filters_and_opens_overlays(browser, tmp_path):
    rows = [row(i) for i in range(12)] + [row(12, 'skipped', reason=EVIL), row(13, 'error')]
    for one in rows[:12]:
        picture = np.full((40, 50, 3), 99, np.uint8)
        overlay.write_png(tmp_path / f'overlays/{one["ImageId"]}.png', picture)
    write(tmp_path / 'report.html', rows)
    browser.get((tmp_path / 'report.html').as_uri())

    def column(key):
        script = 'return Array.from(document.querySelectorAll("#images tbody tr"))'
        script += f'.filter(r => !r.hidden).map(r => r.dataset.{key} ?? null)'
        return [
            value if value is None else float(value) for value in browser.execute_script(script)
        ]

    def click(selector):
        browser.find_element('css selector', selector).click()

    def ordered(key, reverse):
        known = sorted((r[key] for r in rows if r[key] is not None), reverse=reverse)
        return known + [None] * (len(rows) - len(known))

    assert column('probability') == ordered('probability', True)
    click('th[data-key=px] button')
    assert column('px') == ordered('area_px', True)
    click('th[data-key=px] button')
    assert column('px') == ordered('area_px', False)
    click('th[data-key=mm2] button')
    assert column('mm2') == ordered('area_mm2', True)
    click('button[data-filter=other]')
    assert column('order') == [12, 13]
    assert browser.find_element('id', 'shown').text == '2 of 14 files'
    click('button[data-filter=all]')
    browser.find_element('id', 'search').send_keys('IM_11')
    assert column('order') == [11]
    assert browser.execute_script(
        'return document.querySelector("tr:not([hidden]) img").naturalWidth > 0'
    )
    assert browser.get_log('browser') == []
    click('tr:not([hidden]) td a')
    assert pathlib.Path(browser.current_url).name == 'im_11.png'
    assert browser.execute_script('return document.images[0].naturalWidth') == 50
    assert browser.get_log('browser') == []


@pytest.mark.slow
@pytest.mark.parametrize('show_names', [False, True])
def test_it_can_be_read_on_a_phone(browser, tmp_path, show_names):
    rows = [row(i, patient='Doe^Jane', file=f'a/very/long/{"x" * 90}.dcm') for i in range(6)]
    rows += [row(6, 'skipped', reason='a CT slice, not a radiograph'), row(7, 'error', reason='no')]
    write(tmp_path / 'report.html', rows, show_names=show_names)
    page = tmp_path / 'report.html'
    for width, display in ((PHONE, 'grid'), (DESK, 'table-row')):
        assert_readable(show(browser, page, width), width)
        browser.execute_script('document.querySelector("details").open = true')
        scroll = browser.execute_script('return document.documentElement.scrollWidth')
        assert scroll <= width
        shown = browser.execute_script(
            'const row = document.querySelector("#images tbody tr:not([hidden])");'
            'return [getComputedStyle(row).display, row.innerText, row.offsetHeight,'
            ' getComputedStyle(row.querySelector("[data-label]"), "::before").content]'
        )
        assert shown[0] == display
        assert 'Doe^Jane' in shown[1] or not show_names
        assert shown[2] < 250
        assert ('Probability' in shown[3]) == (width == PHONE)
    show(browser, page, PHONE)
    browser.find_element('css selector', 'button[data-filter=other]').click()
    script = 'return Array.from(document.querySelectorAll("#images tbody tr"))'
    script += '.filter(r => r.offsetHeight).map(r => Number(r.dataset.order))'
    assert browser.execute_script(script) == [6, 7]
    browser.find_element('css selector', 'th[data-key=status] button').click()
    assert browser.execute_script(script) == [7, 6]
    assert browser.get_log('browser') == []


@pytest.mark.slow
def test_long_pages_show_a_part_at_a_time_and_sort_all(browser, tmp_path):
    rows = [row(i % 12, probability=i / 300) for i in range(300)]
    write(tmp_path / 'report.html', rows)
    browser.get((tmp_path / 'report.html').as_uri())

    def shown():
        script = 'return Array.from(document.querySelectorAll("#images tbody tr"))'
        script += '.filter(r => r.offsetHeight).map(r => Number(r.dataset.order))'
        return browser.execute_script(script)

    assert shown() == list(range(299, 99, -1))
    browser.find_element('css selector', 'th[data-key=probability] button').click()
    assert shown() == list(range(200))
    browser.find_element('id', 'more').click()
    assert shown() == list(range(300))
    assert not browser.find_element('id', 'more').is_displayed()
    assert browser.get_log('browser') == []
