"""Both checklists: every item once, every answer from the run's files and nothing beyond them."""

import json
import re
import shutil

import pytest

from pneumojax.errors import UsageError
from pneumojax.evaluation.checklists import items, reporting
from pneumojax.evaluation.checklists.reporting import AUTHORS
from pneumojax.runs.run import Run

# As published: TRIPOD+AI has 27 items, some of them with letters, 52 lines in all.
LETTERS = {3: 'abc', 5: 'ab', 6: 'abc', 8: 'abc', 9: 'abc', 12: 'abcdefg', 18: 'abcdef',
           20: 'abc', 23: 'ab', 27: 'abc'}  # fmt: skip
TRIPOD_AI = [f'{n}{letter}' for n in range(1, 28) for letter in LETTERS.get(n, ('',))]
CLAIM = [str(n) for n in range(1, 45)]
# What a run's files cannot know, by number.
ONLY_PEOPLE = {
    'CLAIM 2024': {'3', '4', '5', '6', '11', '12', '13', '15', '16', '18', '31', '34', '41', '44'},
    'TRIPOD+AI': {
        '3a', '3b', '3c', '5b', '6a', '6c', '8b', '8c', '9c', '11', '12f', '17', '18a', '18b',
        '18c', '18d', '18e', '19', '24', '25', '27a', '27b', '27c',
    },
}  # fmt: skip

# Where not every text is allowed, another one that is.
VALID = {
    'last': 'average', 'run-length codes': 'files', 'drawn': 'table', 'none': 'auxiliary',
    'sgd': 'adam', 'unit': 'imagenet', 'half': 'single',
}  # fmt: skip


@pytest.fixture
def run(evaluated, tmp_path):
    """A copy, which a test may change."""
    return Run(shutil.copytree(evaluated.path, tmp_path / 'run'))


def answers(run):
    """{(checklist, number): the answer} of what `make` gives, read as a table."""
    found = {}
    for part in reporting.make(run).split('\n## ')[1:]:
        title = part.splitlines()[0]
        for line in part.splitlines():
            if match := re.fullmatch(r'\| (\d+[a-g]?) \| (.+?) \| (.+) \|', line):
                assert (title, match[1]) not in found
                found[title, match[1]] = match[3]
    return found


def known(answer):
    """What the run says, without what people are asked for."""
    return answer.partition(AUTHORS)[0].removesuffix('<br>')


def test_every_item_is_there_once_and_in_order(run):
    found = list(answers(run))
    assert [number for title, number in found if title == 'CLAIM 2024'] == CLAIM
    assert [number for title, number in found if title == 'TRIPOD+AI'] == TRIPOD_AI
    assert (len(CLAIM), len(TRIPOD_AI)) == (44, 52)


def test_what_only_people_know_is_left_to_them(run):
    for (title, number), answer in answers(run).items():
        if number in ONLY_PEOPLE[title]:
            assert answer.startswith(AUTHORS), (title, number)
        assert answer.strip(), (title, number)


def test_both_checklists_are_markdown_tables(run):
    markdown = pytest.importorskip('markdown_it').MarkdownIt('commonmark').enable('table')
    rendered = markdown.render(reporting.write(run).read_text(encoding='utf-8'))
    assert rendered.count('<table>') == 2
    sections = len(items.CLAIM) + len(items.TRIPOD_AI)
    assert rendered.count('<tr>') == 2 + sections + len(CLAIM) + len(TRIPOD_AI)
    assert str(run.path) not in rendered


def others(content):
    """The content of a JSON file with one value changed, for each value and some changes."""

    def parts(value, path=()):
        for key, part in value.items():
            yield (*path, key), part
            yield from parts(part, (*path, key)) if isinstance(part, dict) else ()

    for path, value in parts(content):
        for changed in changes(value):
            other = json.loads(json.dumps(content))
            node = other
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = changed
            yield other


def changes(value):
    """Other values that the file may hold there."""
    if isinstance(value, bool) or value is None:
        return (not value,)
    if isinstance(value, int):
        return value + 2, value + 32
    if isinstance(value, float):
        return value + 1, None
    if isinstance(value, list):
        return (value[1:],)
    if isinstance(value, dict):
        return {}, None
    return (VALID.get(value, f'{value}x'),)


def test_every_answer_comes_from_the_files(run):
    """Each one changes with some value of some file, as no sentence that is always there does."""
    before, moved = answers(run), set()

    def compare():
        try:
            after = answers(run)
        except UsageError:  # a value that no such file holds
            return
        moved.update(key for key in before if after[key] != before[key])

    for name in ('config.json', 'split.json', 'evaluation.json', 'thresholds.json'):
        content = json.loads((run / name).read_text())
        for other in others(content):
            (run / name).write_text(json.dumps(other))
            compare()
        run.write_json(name, content)
    assert answers(run) == before
    (run / 'contact_sheet.png').unlink()
    compare()
    fixed = {key for key, answer in before.items() if known(answer)} - moved
    assert fixed == {('CLAIM 2024', '23')}  # the versions of the program that writes the table


def test_no_more_is_said_than_is_known(run):
    report = run.read_json('evaluation.json')
    found = answers(run)
    # Phantoms in Kaggle's layout, whose patients are named.
    assert "run-length codes in Kaggle's CSV" in found['CLAIM 2024', '14']
    assert found['CLAIM 2024', '20'] == 'Patients'
    assert known(found['CLAIM 2024', '33']) == ''
    for masks, words in (('files', 'mask files'), (None, 'no image has one')):
        run.write_json('evaluation.json', report | {'data': report['data'] | {'masks': masks}})
        assert words in answers(run)['TRIPOD+AI', '8a']
    run.write_json('evaluation.json', report | {'data': report['data'] | {'patients': None}})
    found = answers(run)
    assert found['CLAIM 2024', '20'] == 'Images: the data set names no patients'
    assert 'images of one may be on both sides' in found['CLAIM 2024', '19']
    assert 'over images' in found['CLAIM 2024', '29']
    del report['data']  # as an earlier version wrote it
    run.write_json('evaluation.json', report)
    assert 'one of the layouts' in answers(run)['CLAIM 2024', '14']
    assert 'as far as the data set names them' in answers(run)['CLAIM 2024', '20']


def test_how_the_rule_was_chosen_is_said(run):
    stated = run.read_json('thresholds.json')
    risk = {'risk': {'miss': 0.1, 'confidence': 0.95, 'patients': 9, 'calibrated_miss': 0.05}}
    for change, words in (
        ({'kind': 'half'}, 'fixed, nothing was chosen'),
        ({'kind': 'single'}, 'chosen by mean Dice'),
        ({'kind': 'risk', **risk}, 'chosen by risk control'),
    ):
        run.write_json('thresholds.json', stated | change)
        for key in (('CLAIM 2024', '26'), ('TRIPOD+AI', '15')):
            assert words in answers(run)[key]


def test_an_external_evaluation_counts_where_its_files_are(run):
    inside = Run(run / 'elsewhere')
    inside.path.mkdir()
    report = run.read_json('evaluation.json') | {'n': 77, 'n_positive': 11, 'external': {}}
    inside.write_json('evaluation.json', report)
    for key in (('CLAIM 2024', '33'), ('TRIPOD+AI', '16')):
        assert '`elsewhere`: 77 images, 11 positive' in answers(run)[key]
