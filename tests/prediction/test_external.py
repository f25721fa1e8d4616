"""Evaluation on labelled images from elsewhere: nothing is chosen on them, and none was seen."""

import csv
import json
import logging
import shutil

import cv2
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from pneumojax import config as config_lib
from pneumojax.data.files import dicom
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.evaluation import comparison, image_probability, thresholds
from pneumojax.evaluation.per_image import read_csv
from pneumojax.prediction import external
from pneumojax.prediction.options import Options
from pneumojax.runs.run import Run
from pneumojax.system import progress
from tests.data.files.test_inputs import make
from tests.evaluation.schema import problems
from tests.narrow_pages import DESK, PHONE, assert_readable, show
from tests.prediction.predictions import predict, results
from tests.tiny_runs import write_run

RULE = (0.6, 30_000, 0.6)  # leaves two of the sixteen empty


def write_labelled(root, seed=5, count=16):
    phantom.write_dataset(root, num_images=count, size=96, seed=seed, positive_share=0.5)
    return root


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp('elsewhere') / 'set')


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
    """The data set that the run was trained on."""
    return write_labelled(tmp_path_factory.mktemp('learned') / 'set', seed=6, count=8)


@pytest.fixture
def trained(tmp_path, learned):
    return of(tmp_path / 'run', learned)


def of(path, root, seed=0):
    run = write_run(path, seed=seed, rule=RULE)
    config = run.config()
    config.data.root = str(root)
    run.write_text('config.json', config_lib.to_json(config))
    ids = sorted(p.stem for p in root.rglob('*.dcm'))
    run.write_json('split.json', {'train': ids[:-2], 'validation': ids[-2:]})
    return run


def evaluate(runs, source, output):
    return external.evaluate(runs, str(source), str(output), Options(runtime='jax'))


def table(folder):
    with open(folder / 'per_image.csv', newline='', encoding='utf-8') as file:
        return {row['ImageId']: row for row in csv.DictReader(file)}


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def masks(root):
    """ImageId to mask, decoded from the CSV by the definition of its code."""
    found = {}
    with open(root / 'train-rle.csv', newline='') as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            name, text = row['ImageId'], row['EncodedPixels'].strip()
            flat = np.zeros(96 * 96, bool)
            position = 0
            numbers = [int(n) for n in text.split()] if text != '-1' else []
            for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
                flat[position + gap : position + gap + length] = True
                position += gap + length
            found[name] = found.get(name, False) | flat.reshape(96, 96).T
    return found


def test_the_masks_are_those_of_predict_and_the_figures_are_theirs(trained, labelled, tmp_path):
    runs = [trained, write_run(tmp_path / 'other', seed=1, rule=RULE)]
    report = evaluate(runs, labelled, tmp_path / 'out')
    assert predict(runs, labelled, tmp_path / 'predicted', seg='none') == 0
    rows, true = table(tmp_path / 'out'), masks(labelled)
    predicted = {r['ImageId']: r for r in results(tmp_path / 'predicted') if r['status'] == 'ok'}
    assert rows.keys() == predicted.keys() == true.keys()
    dices = []
    for name, row in rows.items():
        mask = cv2.imread(str(tmp_path / 'predicted' / 'masks' / f'{name}.png'), 0) > 0
        total = mask.sum() + true[name].sum()
        dices.append(2 * (mask & true[name]).sum() / total if total else 1)
        assert float(row['dice']) == pytest.approx(dices[-1], abs=1e-6)
        assert int(row['predicted_px']) == int(predicted[name]['area_px']) == mask.sum()
        assert int(row['true_px']) == true[name].sum()
        for column in ('probability', 'score'):
            assert float(row[column]) == pytest.approx(float(predicted[name][column]))
    assert report['mean_dice']['value'] == pytest.approx(np.mean(dices))
    assert 0 < np.mean(dices) < 1
    assert (report['n'], report['n_positive']) == (16, 8)
    assert problems(report) == []


def test_nothing_is_chosen_and_the_run_stays_as_it_is(trained, labelled, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError('a rule was searched on images from elsewhere')

    for name in ('search', 'cross_fit', 'sweep', 'dice_per_image'):
        monkeypatch.setattr(thresholds, name, refuse)
    for name in ('fit', 'cross_fit'):
        monkeypatch.setattr(image_probability, name, refuse)
    before = contents(trained.path)
    report = evaluate([trained], labelled, tmp_path / 'out')
    assert contents(trained.path) == before
    rule = trained.read_json('thresholds.json')
    stated = report['external']['rule']
    assert {key: stated[key] for key in ('top', 'area', 'bottom')} == dict(
        zip(('top', 'area', 'bottom'), RULE, strict=True)
    )
    assert stated['reference_pixels'] == rule['reference_pixels']
    assert report['external']['probability'] == rule['probability']
    score, positive = (
        np.array([float(row[name]) for row in table(tmp_path / 'out').values()])
        for name in ('score', 'true_px')
    )
    calibration = image_probability.Calibration.from_json(rule['probability'])
    assert report['calibration']['brier']['value'] == pytest.approx(
        brier_score_loss(positive > 0, calibration(score)), abs=1e-5
    )
    # No group of these sixteen images is large enough to be shown.
    written = {p.name for p in (tmp_path / 'out').iterdir()}
    assert written == set(external.FILES) - {'subgroups.png'}


def test_shuffled_labels_change_the_scores_but_no_mask(trained, labelled, tmp_path):
    shuffled = tmp_path / 'shuffled'
    shutil.copytree(labelled, shuffled)
    header, *lines = (shuffled / 'train-rle.csv').read_text().splitlines()
    names, texts = zip(*(line.split(',', 1) for line in lines), strict=True)
    turned = [f'{name},{text}' for name, text in zip(names, texts[3:] + texts[:3], strict=True)]
    (shuffled / 'train-rle.csv').write_text('\n'.join([header, *turned]) + '\n')
    one = evaluate([trained], labelled, tmp_path / 'one')
    other = evaluate([trained], shuffled, tmp_path / 'other')
    mine, theirs = table(tmp_path / 'one'), table(tmp_path / 'other')
    assert [r['dice'] for r in mine.values()] != [r['dice'] for r in theirs.values()]
    for name in mine:
        for column in ('predicted_px', 'probability', 'score'):
            assert mine[name][column] == theirs[name][column]
    assert one['external']['digest'] != other['external']['digest']
    assert one['external']['rule'] == other['external']['rule']


def test_the_digest_is_of_the_content_and_not_of_the_place(trained, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / 'moved')
    one = evaluate([trained], labelled, tmp_path / 'one')
    other = evaluate([trained], tmp_path / 'moved', tmp_path / 'other')
    assert one['external']['digest'] == other['external']['digest']
    assert one['external']['networks'] == other['external']['networks']


def test_images_that_were_learned_from_are_left_out(trained, labelled, learned, tmp_path, messages):
    source = tmp_path / 'in'
    shutil.copytree(labelled, source)
    mine = sorted(p.stem for p in labelled.rglob('*.dcm'))
    files = sorted(learned.rglob('*.dcm'))
    # One of them under its own name, one that chose the rule, and one that was renamed.
    lines = []
    for file, name in ((files[0], ''), (files[-1], ''), (files[2], 'renamed')):
        name = name or file.stem
        shutil.copy(file, source / f'{name}.dcm')
        lines.append(f'{name},-1\n')
    with open(source / 'train-rle.csv', 'a') as table_file:
        table_file.writelines(lines)
    (source / 'patients.csv').unlink()
    report = evaluate([trained], source, tmp_path / 'out')
    assert sorted(table(tmp_path / 'out')) == mine
    assert report['external']['left_out'] == {'same_image_id': 2, 'same_file': 1}
    assert any(m.startswith('2 images have the ImageId of one') for m in messages)
    assert any(m.startswith('1 images are files') for m in messages)
    assert not any('not all is known' in m for m in messages)
    clean = evaluate([trained], labelled, tmp_path / 'clean')
    assert clean['external']['left_out'] == {'same_image_id': 0, 'same_file': 0}
    assert clean['mean_dice']['value'] == report['mean_dice']['value']
    with pytest.raises(UsageError, match='trained or calibrated on all 8'):
        evaluate([trained], learned, tmp_path / 'nothing')
    assert not (tmp_path / 'nothing').exists()


def test_what_an_earlier_stage_learned_from_counts_too(labelled, learned, tmp_path):
    first = of(tmp_path / 'first', labelled)
    run = of(tmp_path / 'run', learned)
    config = run.config()
    config.init_from = str(first.path)
    run.write_text('config.json', config_lib.to_json(config))
    with pytest.raises(UsageError, match='trained or calibrated on all 16'):
        evaluate([run], labelled, tmp_path / 'out')


def test_what_cannot_be_compared_is_said(trained, labelled, tmp_path, messages):
    config = trained.config()
    config.data.root = str(tmp_path / 'gone')
    trained.write_text('config.json', config_lib.to_json(config))
    report = evaluate([trained], labelled, tmp_path / 'out')
    assert '1 data sets are no longer there' in report['external']['compared_with']
    (trained / 'split.json').unlink()
    evaluate([trained], labelled, tmp_path / 'again')
    assert any('1 networks do not state what they learned from' in m for m in messages)


def test_patients_are_those_of_the_data_set_and_nobody_is_named(
    trained, labelled, learned, tmp_path, messages, capfd
):
    source = tmp_path / 'in'
    shutil.copytree(labelled, source)
    with open(labelled / 'patients.csv', newline='') as file:
        owners = {row['ImageId']: 'Zzyzx' + row['PatientId'] for row in csv.DictReader(file)}
    lines = [f'{name},{patient}\n' for name, patient in owners.items()]
    (source / 'patients.csv').write_text('ImageId,PatientId\n' + ''.join(lines))
    report = evaluate([trained], source, tmp_path / 'out')
    rows = table(tmp_path / 'out')
    pairs = {(owners[name], row['patient']) for name, row in rows.items()}
    count = len(set(owners.values()))
    assert len(pairs) == len({number for _, number in pairs}) == count < 16
    assert report['external']['patients'].startswith(f'{count}, as the data set')
    for path in (tmp_path / 'out').iterdir():
        assert b'zzyzx' not in path.read_bytes().lower()
    assert 'zzyzx' not in ''.join(capfd.readouterr()).lower()
    # Wider than by image: images of one patient are not independent.
    (source / 'patients.csv').unlink()
    by_image = evaluate([trained], source, tmp_path / 'by_image')
    assert 'each image counts as one' in by_image['external']['patients']
    assert by_image['mean_dice']['value'] == report['mean_dice']['value']
    assert by_image['mean_dice']['low'] != report['mean_dice']['low']
    # A patient of the same number may be the same person.
    shutil.copy(learned / 'patients.csv', tmp_path / 'theirs')
    with open(learned / 'patients.csv', newline='') as file:
        known = next(csv.DictReader(file))['PatientId']
    lines[0] = f'{next(iter(owners))},{known}\n'
    (source / 'patients.csv').write_text('ImageId,PatientId\n' + ''.join(lines))
    shared = evaluate([trained], source, tmp_path / 'shared')
    assert shared['external']['patients_trained_on'] == 1
    assert any(m.startswith('1 patients have the PatientId of one') for m in messages)


def test_a_folder_of_ones_own_with_all_sides_of_its_split(trained, labelled, tmp_path):
    source = tmp_path / 'own'
    (source / 'masks').mkdir(parents=True)
    names = sorted(p.stem for p in labelled.rglob('*.dcm'))
    true = masks(labelled)
    lines = ['ImageId,PatientId,split\n']
    paths = sorted(labelled.rglob('*.dcm'), key=lambda path: path.stem)
    for number, path in enumerate(paths):
        cv2.imwrite(str(source / f'{path.stem}.png'), dicom.to_uint8(dicom.read(path)))
        cv2.imwrite(str(source / 'masks' / f'{path.stem}.png'), true[path.stem] * np.uint8(255))
        lines.append(f'{path.stem},p{number // 2},{("train", "validation", "test")[number % 3]}\n')
    (source / 'table.csv').write_text(''.join(lines))
    report = evaluate([trained], source, tmp_path / 'out')
    rows, same = table(tmp_path / 'out'), evaluate([trained], labelled, tmp_path / 'dicom')
    assert list(rows) == names
    assert [int(row['patient']) for row in rows.values()] == [i // 2 + 1 for i in range(16)]
    assert report['mean_dice']['value'] == same['mean_dice']['value']


def test_images_whose_tags_prediction_refuses_are_scored_all_the_same(trained, tmp_path):
    source = tmp_path / 'in'
    source.mkdir()
    make(source / 'a.dcm', BodyPartExamined='HAND', ViewPosition='LL')
    (source / 'train-rle.csv').write_text('ImageId,EncodedPixels\na,-1\n')
    assert evaluate([trained], source, tmp_path / 'out')['n'] == 1


def test_two_evaluations_can_be_compared(trained, labelled, tmp_path, capsys):
    other = of(tmp_path / 'other', write_labelled(tmp_path / 'third', seed=7, count=4), seed=1)
    evaluate([trained], labelled, tmp_path / 'one')
    evaluate([other], labelled, tmp_path / 'two')
    capsys.readouterr()
    found = comparison.compare(None, Run(tmp_path / 'one'), str(tmp_path / 'two'))
    ours, theirs = (read_csv(tmp_path / name) for name in ('one', 'two'))
    expected = comparison.difference([ours], [theirs], seed=0)
    expected |= {'n': 16, 'n_positive': 8}
    assert {name: found[name] for name in expected} == expected  # beside the sections'
    assert found['boundary']['surface_dice_wide']['second'] == 0
    with open(labelled / 'patients.csv', newline='') as file:
        owners = {row['ImageId']: row['PatientId'] for row in csv.DictReader(file)}
    assert len(set(ours.patients)) == len(set(owners.values()))
    assert 'Mean Dice' in capsys.readouterr().out
    written = json.loads((tmp_path / 'one' / 'comparisons.json').read_text())
    assert list(written) == [str(tmp_path / 'two')]


def test_folders_that_cannot_be_used(trained, labelled, tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'precious.txt').write_text('x')
    for output, expected in (
        (tmp_path / 'full', 'not empty'), (trained.path, 'not empty'),
        (labelled / 'out', 'in --input'),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=expected):
            evaluate([trained], labelled, output)
    with pytest.raises(UsageError, match='--input: there is no folder'):
        evaluate([trained], tmp_path / 'nowhere', tmp_path / 'out')
    source = tmp_path / 'damaged'
    shutil.copytree(labelled, source)
    path = sorted(source.rglob('*.dcm'))[3]
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UsageError, match=f'ImageId {path.stem}'):
        evaluate([trained], source, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    assert [p.name for p in (tmp_path / 'full').iterdir()] == ['precious.txt']


def test_a_mask_of_another_size_is_refused(trained, tmp_path):
    source = tmp_path / 'in'
    (source / 'masks').mkdir(parents=True)
    image = phantom.draw(np.random.default_rng(0), 64, True).image
    cv2.imwrite(str(source / 'a.png'), image)
    cv2.imwrite(str(source / 'masks' / 'a.png'), np.full((32, 64), 255, np.uint8))
    with pytest.raises(UsageError, match=r'64 x 64 pixels .* its mask 32 x 64'):
        evaluate([trained], source, tmp_path / 'out')


def test_the_report_says_what_it_is_of(trained, labelled, tmp_path, messages):
    progress.log.setLevel(logging.INFO)
    report = evaluate([trained], labelled, tmp_path / 'out')
    page = (tmp_path / 'out' / 'report.html').read_text()
    for words in (
        report['external']['digest'], '16 images from elsewhere, 8 with pneumothorax', 'tiny0',
        'fewer than 30,000 pixels', 'Not for diagnosis', 'data:image/png', str(labelled),
    ):  # fmt: skip
        assert words in page
    assert any('scored under the rule of' in m for m in messages)


@pytest.mark.parametrize('width', [PHONE, DESK])
def test_the_report_can_be_read_on_a_phone(trained, labelled, tmp_path, browser, width):
    evaluate([trained], labelled, tmp_path / 'out')
    assert_readable(show(browser, tmp_path / 'out' / 'report.html', width), width)
