"""Prediction of mended, hostile, foreign and nameless files."""

import json
import os
import pathlib
import re
import shutil

import cv2
import numpy as np
import pydicom
import pytest

from pneumojax.data.files import dicom
from pneumojax.evaluation.thresholds import EMPTY
from pneumojax.prediction import streaming
from tests.prediction.predictions import predict, results
from tests.tiny_runs import write_run


def test_a_file_that_was_mended_is_read_again(run, images, tmp_path):
    source, folder = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    whole = (images / 'image2.dcm').read_bytes()
    (source / 'a.dcm').write_bytes(whole[:-300])
    (source / 'b.dcm').write_bytes(whole)
    assert predict([run], source, folder) == 3
    assert [row['status'] for row in results(folder)] == ['error', 'ok']
    assert (folder / 'submission.csv').read_text().splitlines()[1].startswith('b,')
    (source / 'a.dcm').write_bytes(whole)
    assert predict([run], source, folder) == 0
    rows = results(folder)
    assert [row['status'] for row in rows] == ['ok', 'ok']
    assert 'same SOPInstanceUID as a.dcm' in rows[1]['reason']


def test_an_input_without_any_radiograph_is_no_success(run, images, tmp_path, messages):
    source = tmp_path / 'in'
    source.mkdir()
    (source / 'notes.txt').write_text('the radiographs are on the other disk')
    for _ in range(2):  # from the start, and continued
        assert predict([run], source, tmp_path / 'out') == 3
        assert [row['status'] for row in results(tmp_path / 'out')] == ['skipped']
    assert sum('there is no radiograph in the input' in message for message in messages) == 2
    shutil.copy(images / 'image2.dcm', source)
    assert predict([run], source, tmp_path / 'both') == 0
    assert predict([run], source / 'notes.txt', tmp_path / 'one') == 3


def test_a_rule_that_empties_every_mask_is_said(run, images, tmp_path, messages):
    source = images / 'image2.dcm'
    assert predict([run], source, tmp_path / 'marked') == 0
    assert not any('every mask will be empty' in message for message in messages)
    empty = write_run(tmp_path / 'run', rule=(EMPTY.top, EMPTY.area, EMPTY.bottom))
    assert predict([empty], source, tmp_path / 'empty') == 0
    assert sum('every mask will be empty' in message for message in messages) == 1
    assert results(tmp_path / 'empty')[0]['area_px'] == '0'
    assert 'Every image is left empty' in (tmp_path / 'empty' / 'report.html').read_text()


def test_names_of_patients_stay_out(run, images, tmp_path, capfd):
    source = tmp_path / 'in'
    source.mkdir()
    name = 'Zzyzx^<script>alert(1)</script>'
    dataset = pydicom.dcmread(images / 'image2.dcm')
    dataset.PatientName, dataset.PatientID = name, 'ID-Zzyzx'
    del dataset.PixelSpacing, dataset.ImagerPixelSpacing
    dataset.save_as(source / 'a.dcm')
    data = (source / 'a.dcm').read_bytes()
    (source / 'b.dcm').write_bytes(data[:-400])
    assert predict([run], source, tmp_path / 'out') == 3
    for path in (tmp_path / 'out').rglob('*'):
        if path.is_file() and path.parent.name != 'seg':
            assert b'zzyzx' not in path.read_bytes().lower(), path
    assert 'zzyzx' not in ''.join(capfd.readouterr()).lower()
    assert results(tmp_path / 'out')[0]['area_mm2'] == ''

    predict([run], source, tmp_path / 'named', show_names=True)
    page = (tmp_path / 'named' / 'report.html').read_text()
    assert 'Zzyzx^&lt;script&gt;alert(1)&lt;/script&gt;' in page
    assert page.count('<script') == 1


def test_a_row_names_the_tags_that_its_objects_lack(run, images, tmp_path):
    source = tmp_path / 'in'
    source.mkdir()
    dataset = pydicom.dcmread(images / 'image2.dcm')
    dataset.save_as(source / 'a.dcm')
    dataset.PatientID, dataset.AccessionNumber = 'Zzyzx' * 16, '1' * 20
    dataset.SOPInstanceUID = '1.2.3'
    dataset.save_as(source / 'b.dcm')
    os.mkfifo(source / 'c.dcm')
    (source / '._a.dcm').write_bytes(b'\0\5\x16\7' + bytes(200))
    assert predict([run], source, tmp_path / 'out') == 0
    rows = {row['file']: row for row in results(tmp_path / 'out')}
    assert {file: row['status'] for file, row in rows.items()} == {
        '._a.dcm': 'skipped', 'a.dcm': 'ok', 'b.dcm': 'ok', 'c.dcm': 'skipped',
    }  # fmt: skip
    assert 'in DICOM files' not in rows['a.dcm']['reason']
    assert 'breaks the rules: PatientID, AccessionNumber' in rows['b.dcm']['reason']
    assert 'Zzyzx' not in rows['b.dcm']['reason']
    assert pydicom.dcmread(tmp_path / 'out' / 'seg' / 'b.dcm').PatientID == ''


def test_hostile_names_stay_inside(run, images, tmp_path):
    source, folder = tmp_path / 'deep' / 'in', tmp_path / 'deep' / 'out'
    (source / 'sub').mkdir(parents=True)
    evil = pydicom.dcmread(images / 'image2.dcm')
    names = [
        '..dcm',
        '-rf.dcm',
        '<img src=x onerror=alert(1)>.dcm',
        'a\nb.dcm',
        'Ä ö.dcm',
        '=1.dcm',
    ]
    for name in [*names, 'sub/-rf.dcm', os.fsdecode(b'\xff\xfe.dcm')]:
        evil.save_as(source / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, 'writing_validation_mode', pydicom.config.IGNORE)
        evil.SOPInstanceUID = '../../../evil'
        evil.save_as(source / 'uid.dcm')
    assert predict([run], source, folder) == 0
    rows = results(folder)
    assert len(rows) == 9
    assert len({row['ImageId'] for row in rows}) == 9
    by_file = {row['file']: row for row in rows}
    lines = [json.loads(line) for line in (folder / 'results.jsonl').read_text().splitlines()]
    assert {line['file'] for line in lines} >= {*names, os.fsdecode(b'\xff\xfe.dcm')}
    assert [line['ImageId'] for line in lines] == [row['ImageId'] for row in rows]
    assert 'SOPInstanceUID is malformed' in by_file['uid.dcm']['reason']
    assert '\\xff\\xfe.dcm' in by_file
    assert by_file["'=1.dcm"]['ImageId'] == '_1'  # the name stays that of the file
    assert sum('same SOPInstanceUID as' in row['reason'] for row in rows) == 7
    for row in rows:
        assert re.fullmatch(r'[\w.-]+', row['ImageId'])
        assert (folder / 'masks' / f'{row["ImageId"]}.png').is_file()
        assert (folder / 'overlays' / f'{row["ImageId"]}.png').is_file()
    assert sorted(path.name for path in (tmp_path / 'deep').iterdir()) == ['in', 'out']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['deep']
    page = (folder / 'report.html').read_text(encoding='utf-8')
    assert '<img src=x' not in page


def test_pictures_and_other_files_beside_dicom(run, images, tmp_path, monkeypatch):
    source, folder = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    grey = dicom.to_uint8(dicom.read(images / 'image2.dcm'))
    cv2.imwrite(str(source / 'a.png'), grey)
    shutil.copy(images / 'image2.dcm', source / 'a.dcm')
    (source / 'notes.txt').write_text('hello')
    assert predict([run], source, folder, seg='fractional') == 0
    first, second, third = results(folder)
    assert (first['ImageId'], second['ImageId'], third['status']) == ('a', 'a-2', 'skipped')
    assert first['probability'] == second['probability']
    assert 'no SEG' in second['reason']
    assert os.listdir(folder / 'seg') == ['a.dcm']
    np.testing.assert_array_equal(
        cv2.imread(str(folder / 'masks/a.png')), cv2.imread(str(folder / 'masks/a-2.png'))
    )

    read, load = [], streaming.load
    monkeypatch.setattr(
        streaming, 'load', lambda item, **kw: read.append(item.file) or load(item, **kw)
    )
    assert predict([run], source, folder, seg='fractional') == 0
    assert read == ['notes.txt']  # a picture without a SEG is done all the same


@pytest.mark.slow
def test_every_file_that_pydicom_brings_gets_a_row(run, tmp_path):
    import pydicom.data

    source = pathlib.Path(pydicom.data.__file__).parent
    assert predict([run], source, tmp_path / 'out') == 3
    rows = results(tmp_path / 'out')
    files = [str(p.relative_to(source)) for p in source.rglob('*') if p.is_file()]
    assert sorted(row['file'] for row in rows) == sorted(files)
    assert len({row['ImageId'] for row in rows}) == len(rows)
    for row in rows:
        assert row['status'] in ('ok', 'skipped', 'error')
        assert (row['status'] == 'ok') == (row['probability'] != '')
        assert row['status'] == 'ok' or row['reason']
        if row['status'] == 'ok':
            header = pydicom.dcmread(source / row['file'], stop_before_pixels=True)
            mask = cv2.imread(str(tmp_path / f'out/masks/{row["ImageId"]}.png'), 0)
            assert mask.shape == (header.Rows, header.Columns)
