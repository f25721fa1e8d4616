"""The tables and the journal behind them."""

import csv
import io
import json
import os

import pytest

from pneumojax.prediction import submission
from pneumojax.prediction.journal import Journal

OK = {
    'file': 'a/x.dcm', 'ImageId': 'x', 'status': 'ok', 'reason': 'odd, "quoted"\nnote',
    'probability': 0.25, 'score': 0.5, 'area_px': 3, 'area_mm2': 0.126, 'rle': '0 3', 'notes': [],
}  # fmt: skip
BAD = {
    'file': 'b.dcm', 'ImageId': 'b', 'status': 'error', 'reason': 'cut short',
    'probability': None, 'score': None, 'area_px': None, 'area_mm2': None,
}  # fmt: skip


def test_results_hold_a_row_for_every_file(tmp_path):
    path = tmp_path / 'results.csv'
    submission.write_results(path, tmp_path / 'l', [OK, BAD, BAD | {'file': 'c\udcff'}])
    text = path.read_text(encoding='utf-8')
    header, first, second, third = csv.reader(io.StringIO(text, newline=''))
    assert header == [*submission.COLUMNS]
    assert header[:6] == ['file', 'ImageId', 'status', 'reason', 'probability', 'score']
    numbers = ['0.250000', '0.500000', '3', '0.1']
    assert first == ['a/x.dcm', 'x', 'ok', 'odd, "quoted"\\nnote', *numbers]
    assert second == ['b.dcm', 'b', 'error', 'cut short', '', '', '', '']
    assert third[0] == 'c\\xff'


def test_rows_are_on_the_disk_at_once(tmp_path):
    with submission.Results(tmp_path / 'r.csv', tmp_path / 'r.jsonl') as results:
        results.add(OK)
        assert '0.250000' in (tmp_path / 'r.csv').read_text()
        assert json.loads((tmp_path / 'r.jsonl').read_text())['probability'] == 0.25


HOSTILE = [
    '=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '＝1', 'a\nb,"c', 'x\u202egnp.exe',
    '\x1b[2J', 'caf\xe9', 'p\u2066q', 'l\u2028m', "'=1", os.fsdecode(b'\xff'), '1,5;=2',
]  # fmt: skip


def test_no_cell_for_people_is_a_formula_or_hides_a_character(tmp_path):
    """And scripts get the names that the files have, row by row."""
    rows = [OK | {'file': name, 'reason': name} for name in HOSTILE]
    submission.write_results(tmp_path / 'r.csv', tmp_path / 'r.jsonl', rows)
    content = (tmp_path / 'r.csv').read_bytes().decode()
    assert content.replace('\n', '').isprintable()
    _, *cells = csv.reader(io.StringIO(content, newline=''))
    lines = (tmp_path / 'r.jsonl').read_text(encoding='ascii').splitlines()
    assert len(cells) == len(lines) == len(HOSTILE)
    for name, row, line in zip(HOSTILE, cells, lines, strict=True):
        for shown in (row[0], row[3]):
            assert shown[0] not in '=+-@\t\r＝＋－＠'
            assert shown == name or not name.isprintable() or shown == "'" + name
        assert row[4:] == ['0.250000', '0.500000', '3', '0.1']  # numbers stay numbers
        stated = json.loads(line)
        assert os.fsencode(stated['file']) == os.fsencode(name)
        assert (stated['area_px'], stated['area_mm2']) == (3, 0.126)
    assert cells[8][0] == 'x\\u202egnp.exe'
    assert cells[14][0] == '\\xff'


@pytest.mark.parametrize('full', ['r.csv', 'r.jsonl'])
def test_a_full_disk_names_the_table(tmp_path, full):
    (tmp_path / full).symlink_to('/dev/full')
    with pytest.raises(OSError, match='No space left') as caught:
        submission.Results(tmp_path / 'r.csv', tmp_path / 'r.jsonl').add(OK)
    assert caught.value.filename == str(tmp_path / full)


def test_a_submission_keeps_the_words_of_its_contract(tmp_path):
    submission.write_submission(tmp_path / 's', [OK | {'rle': '-1'}])
    assert (tmp_path / 's').read_text() == 'ImageId,EncodedPixels\nx,-1\n'


def test_a_submission_claims_nothing_about_unread_images(tmp_path):
    path = tmp_path / 'submission.csv'
    empty = OK | {'ImageId': 'y', 'rle': '-1'}
    assert submission.write_submission(path, iter([OK, BAD, empty])) == 2
    assert path.read_text() == 'ImageId,EncodedPixels\nx,0 3\ny,-1\n'


def test_a_failure_keeps_the_old_table(tmp_path):
    path = tmp_path / 'submission.csv'
    path.write_text('old')
    with pytest.raises(KeyError):
        submission.write_submission(path, [OK, {'status': 'ok'}])
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_comes_back_without_its_broken_end(tmp_path):
    path = tmp_path / 'j'
    with Journal(path) as journal:
        for i in range(5):
            journal.add({'file': f'{i}', 'ImageId': 'x', 'value': i})
        journal.add({'file': '2', 'ImageId': 'x', 'value': 'again'})
    whole = path.read_bytes()
    for end in (len(whole) - 1, len(whole) - 9):
        path.write_bytes(whole[:end])
        with Journal(path) as journal:
            assert journal['2'] == {'file': '2', 'ImageId': 'x', 'value': 2}
            journal.add({'file': 'new\udcff', 'ImageId': 'x', 'value': 1})
        with Journal(path) as journal:
            assert [row['file'] for row in journal.rows(['new\udcff', '9', '0'])] == [
                'new\udcff', '0',
            ]  # fmt: skip
            assert '9' not in journal


def test_a_journal_line_that_was_changed_is_done_again(tmp_path):
    path = tmp_path / 'j'
    with Journal(path) as journal:
        for i in range(5):
            journal.add({'file': f'{i}', 'ImageId': f'im{i}', 'rle': '1 2'})
    path.write_bytes(path.read_bytes().replace(b'"im3", "rle": "1 2"', b'"im3", "rle": "1 3"'))
    with Journal(path) as journal:
        assert [row['file'] for row in journal.rows('01234')] == ['0', '1', '2']


@pytest.mark.parametrize('name', ['../x', '/etc/x', '..', '', 'a/b', 'a\0', None, 7, 'a' * 300])
def test_a_journal_names_no_files_elsewhere(tmp_path, name):
    with Journal(tmp_path / 'j') as journal:
        journal.add({'file': 'f', 'ImageId': name})
    with Journal(tmp_path / 'j') as journal:
        assert 'f' not in journal


def test_rows_of_earlier_versions_had_the_score_alone_by_the_name_of_probability(tmp_path):
    with Journal(tmp_path / 'j') as journal:
        journal.add({'file': 'a', 'ImageId': 'a', 'probability': 0.25})
        journal.add({'file': 'b', 'ImageId': 'b', 'probability': 0.25, 'score': 0.5})
        assert (journal['a']['score'], journal['b']['score']) == (0.25, 0.5)
