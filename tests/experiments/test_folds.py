"""k-fold training: resumed, pooled without leaks, and predicting as one."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from pneumojax import config as config_lib
from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import (
    comparison,
    folds,
    image_probability,
    pictures,
    scores,
    thresholds,
)
from pneumojax.evaluation.counts import PixelCounts
from pneumojax.experiments import stages
from pneumojax.flags import expand_fold
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.runtimes import export
from pneumojax.training import loop
from tests.conftest import tiny_config
from tests.evaluation.schema import problems

pytestmark = pytest.mark.usefixtures('quick_compilation')


def two_folds_of_two_stages(root, cache):
    config = tiny_config(root, cache)
    config.name = 'folded'
    config.num_epochs, config.averaging.start = 2, 1
    config.data.num_folds, config.data.fold = 2, -1
    config.stages = {'a': {'num_epochs': 1, 'averaging': {'start': 0}}, 'b': {'seed': 1}}
    return config


def only_pictures_of(path, patch):
    """Pictures of each fold take most of the time and are tested elsewhere."""
    for name in ('write_curves', 'write_calibration', 'write_image_level', 'write_contact_sheet'):
        draw = getattr(pictures, name)
        patch.setattr(
            pictures, name, lambda run, *rest, d=draw: d(run, *rest) if run.path == path else None
        )


@pytest.fixture(scope='module')
def folded(phantoms, cache, tmp_path_factory):
    """Two stages in two folds; the second fold's last stage was interrupted and continued."""
    config, path = two_folds_of_two_stages(phantoms, cache), tmp_path_factory.mktemp('runs') / 'x'
    stopped, train = [], loop.train

    def interrupted(config, run, **options):
        if config.data.fold == 1 and config.name == 'b':
            stopped.append({p: p.stat().st_mtime_ns for p in path.rglob('*') if p.is_file()})
            raise KeyboardInterrupt
        train(config, run, **options)

    with pytest.MonkeyPatch.context() as patch:
        only_pictures_of(path, patch)
        patch.setattr(loop, 'train', interrupted)
        with pytest.raises(KeyboardInterrupt):
            stages.train(config, path)
        patch.setattr(loop, 'train', train)
        stages.train(config, path)
    return config, Run(path), stopped[0]


def rows(run):
    with (run / 'per_image.csv').open() as file:
        return {row['ImageId']: row for row in csv.DictReader(file)}


def test_what_was_finished_is_left_alone(folded):
    _, run, before = folded
    assert {p.parent.name for p in before if p.name == 'evaluation.json'} == {'a', 'b'}
    assert (run / 'config.json') in before
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_stage_starts_from_the_same_fold(folded):
    config, run, _ = folded
    for fold in (0, 1):
        part = Run(run / f'fold{fold}' / 'b').config()
        assert (part.data.fold, part.init_from) == (fold, str(run / f'fold{fold}' / 'a'))
    held_out = [Run(run / f'fold{k}' / 'b').read_json('split.json')['validation'] for k in (0, 1)]
    assert sorted(held_out[0] + held_out[1]) == sorted(rows(run))
    assert run.config().data.fold == config.data.fold == -1


def test_every_image_is_judged_by_the_network_and_the_rule_that_did_not_see_it(folded):
    config, run, _ = folded
    pooled, report = rows(run), run.read_json('evaluation.json')
    leaves = [Run(run / f'fold{k}' / 'b') for k in (0, 1)]
    arrays = [leaf.read_arrays('scores.npz') for leaf in leaves]
    kept = [PixelCounts(a['histograms_0'], a['pixels_0']) for a in arrays]
    fits = [image_probability.fit(a['score_0'], k.true_px > 0)
            for a, k in zip(arrays, kept, strict=True)]  # fmt: skip
    for fold, leaf in enumerate(leaves):
        rule, _ = thresholds.search(kept[1 - fold], config.evaluation.rule)
        dice, area = thresholds.dice_per_image(kept[fold], rule)
        held_out, alone = leaf.read_json('split.json')['validation'], rows(leaf)
        for image_id, d, a in zip(held_out, dice, area, strict=True):
            assert pooled[image_id]['dice'] == f'{d:.6f}'
            assert pooled[image_id]['predicted_px'] == str(a)
            assert pooled[image_id]['score'] == alone[image_id]['score']
            probability = fits[1 - fold](np.array(float(alone[image_id]['score'])))
            assert float(pooled[image_id]['probability']) == pytest.approx(probability, abs=2e-4)
    assert (report['n'], report['n_positive']) == (40, sum(r['true_px'] != '0' for r in
                                                           pooled.values()))  # fmt: skip
    mean = np.mean([float(row['dice']) for row in pooled.values()])
    assert report['mean_dice']['value'] == pytest.approx(mean, abs=1e-6)
    assert list(report['variants']) == ['a', 'b']  # the first stage stands beside it
    assert problems(report) == []
    columns = ('histograms_0', 'pixels_0')
    everything = PixelCounts(*(np.concatenate([a[name] for a in arrays]) for name in columns))
    rule, best = thresholds.search(everything, config.evaluation.rule)
    stated = run.read_json('thresholds.json')
    assert (stated['top'], stated['area'], stated['calibrated_dice']) == (rule.top, rule.area, best)
    score = np.concatenate([a['score_0'] for a in arrays])
    fitted = image_probability.fit(score, everything.true_px > 0)
    assert dataclasses.asdict(fitted) == pytest.approx(stated['probability'])
    for name in ('report.html', 'model_card.md', 'reporting.md', 'curves.png', 'contact_sheet.png'):
        assert (run / name).stat().st_size > 1000
    card = (run / 'model_card.md').read_text()
    assert '40 images in 2 folds' in card
    assert 'Drawn phantoms' in card  # which were there before: the configuration draws none


def test_evaluation_again_predicts_nothing_and_finds_the_same(folded, monkeypatch):
    config, run, _ = folded
    before = {name: (run / name).read_text() for name in ('evaluation.json', 'per_image.csv')}

    def refuse(*args):
        raise AssertionError('predicted again')

    monkeypatch.setattr(scores, 'score', refuse)
    only_pictures_of(None, monkeypatch)
    stages.evaluate(config, run.path)
    assert before == {name: (run / name).read_text() for name in before}
    config.evaluation.rule = 'triplet'  # another rule needs no prediction either
    try:
        stages.evaluate(config, run.path)
        assert run.read_json('thresholds.json')['kind'] == 'triplet'
        assert Run(run / 'fold0' / 'b').read_json('thresholds.json')['kind'] == 'triplet'
        for miss in (0.9, 0.8):  # and so for another guarantee
            config.evaluation.rule, config.evaluation.miss = 'risk', miss
            stages.evaluate(config, run.path)
            for folder in (run, Run(run / 'fold0' / 'b')):
                assert folder.read_json('thresholds.json')['risk']['miss'] == miss
        assert 'misses on average at most 80.0% of a lesion' in (run / 'model_card.md').read_text()
        assert 'misses on average at most 80.0% of a lesion' in (run / 'report.html').read_text()
        config.evaluation.miss = 0.01
        with pytest.raises(UsageError, match=r'evaluation\.miss is 0.01'):
            stages.evaluate(config, run.path)
    finally:
        config.evaluation.rule, config.evaluation.miss = 'single', 0.1
        stages.evaluate(config, run.path)


def test_a_fold_whose_rule_an_earlier_search_found_is_evaluated_again(folded, monkeypatch):
    _, run, _ = folded
    leaf = Run(run / 'fold0' / 'b')
    only_pictures_of(None, monkeypatch)
    monkeypatch.setattr(scores, 'score', None)  # from kept scores: nothing is predicted
    stated = leaf.read_json('thresholds.json')
    stale = {**stated, 'top': 0.999, 'bottom': 0.999}
    leaf.write_json('thresholds.json', stale)
    folds.evaluate_one(leaf.config(), leaf)
    assert leaf.read_json('thresholds.json') == stale  # by the same search: not looked at again
    for key in ('search', 'probability'):  # an earlier version calibrated no image probability
        leaf.write_json('thresholds.json', {k: v for k, v in stale.items() if k != key})
        folds.evaluate_one(leaf.config(), leaf)
        assert leaf.read_json('thresholds.json') == stated


def test_an_evaluation_under_another_config_is_refused(folded):
    """Its figures and thresholds would be of another network."""
    config, run, _ = folded
    before = {p: p.read_bytes() for p in run.path.rglob('*.json')}
    for key, value in (('model.normalization', 'imagenet'), ('seed', 5), ('data.split_seed', 9)):
        other = config.copy_and_resolve_references()
        old = config_lib.get(other, key)
        other.update_from_flattened_dict({key: value})
        with pytest.raises(UsageError, match=rf'--config: .*{key}: {old!r} -> {value!r}\).*leave'):
            stages.evaluate(other, run.path)
        with pytest.raises(UsageError, match=f'--config: .*{key}'):
            comparison.compare(other, run, str(run / 'fold0' / 'b'))
        with pytest.raises(UsageError, match=f'--config: .*{key}'):
            export.export(other, run, str(run / 'exported'))
    assert {p: p.read_bytes() for p in run.path.rglob('*.json')} == before


def test_a_run_that_was_moved_is_still_evaluated_under_its_own_config(folded, tmp_path):
    """Its later stages name the folder that the earlier ones were in."""
    _, run, _ = folded
    moved = tmp_path / 'moved'
    shutil.copytree(run.path, moved)
    for stage, part in layout.runs(Run(moved).config(), moved):
        part.require_config(stage)
        assert scores.are_kept(scores.load_trained(stage, part))


def test_the_directory_predicts_as_one(folded):
    config, run, _ = folded
    whole = Ensemble([run], 'jax')
    parts = [Ensemble([Run(run / f'fold{k}' / 'b')], 'jax') for k in (0, 1)]
    records = dataset_lib.load(Run(run / 'fold0' / 'b').config()).records
    images = np.stack([records[i][0] for i in range(3)])
    mean = np.mean([p.predict({config.image_size: images})[config.image_size] for p in parts], 0)
    np.testing.assert_allclose(
        whole.predict({config.image_size: images})[config.image_size], mean, atol=1e-6
    )
    stated = run.read_json('thresholds.json')
    assert (whole.rule.top, whole.rule.area) == (stated['top'], stated['area'])
    fold = Ensemble([Run(run / 'fold1')], 'jax')  # stages: the last one
    assert [m['run'] for m in fold.identity] == [str((run / 'fold1' / 'b').resolve())]


def test_another_training_of_a_fold_is_scored_anew(folded, tmp_path):
    _, run, _ = folded
    leaf = Run(run / 'fold0' / 'b')
    step = leaf.checkpoints.latest_step()
    path = leaf / f'checkpoints/{step}/_CHECKPOINT_METADATA'
    text = path.read_text()
    trained = scores.TrainedRun(leaf.config(), leaf, dataset_lib.load(leaf.config()), step)
    assert scores.are_kept(trained)
    try:
        path.write_text(json.dumps(json.loads(text) | {'commit_timestamp_nsecs': 1}))
        assert not scores.are_kept(trained)
    finally:
        path.write_text(text)
    (leaf / 'scores.npz').rename(tmp_path / 'kept')
    try:
        (leaf / 'scores.npz').write_bytes((tmp_path / 'kept').read_bytes()[:-50])
        assert not scores.are_kept(trained)
    finally:
        (tmp_path / 'kept').rename(leaf / 'scores.npz')


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (['x', '--config=a.py:fold3', '--b'], ['x', '--config=a.py', '--fold=3', '--b']),
        (['x', '--config=a.py:folds'], ['x', '--config=a.py', '--fold=all']),
        (['x', '--config', 'a.py:fold10'], ['x', '--config', 'a.py', '--fold=10']),
        (['x', '--config=a.py:other'], ['x', '--config=a.py:other']),
        (['x', '--workdir=a:fold3', 'b:folds'], ['x', '--workdir=a:fold3', 'b:folds']),
    ],
)
def test_the_short_form_of_the_flag(given, expected):
    assert expand_fold(given) == expected


def test_one_fold_alone_is_the_one_that_all_would_train(config, tmp_path):
    (tmp_path / 'stage1' / 'fold2').mkdir(parents=True)
    config.init_from = str(tmp_path / 'stage1')
    alone, path = layout.select_fold(config.copy_and_resolve_references(), tmp_path / 'r', '2')
    whole, parent = layout.select_fold(config.copy_and_resolve_references(), tmp_path / 'r', 'all')
    both = dict(layout.children(whole, parent) and [(p, c) for c, p in layout.children(
        whole, parent)])  # fmt: skip
    assert list(both) == [tmp_path / 'r' / f'fold{k}' for k in range(4)]
    assert both[path] == alone
    assert alone.init_from == str(tmp_path / 'stage1' / 'fold2')
    path.mkdir(parents=True)
    Run(parent).start(whole)  # a fold that was trained alone is no stranger
    for bad in ('4', '-1', 'both', ''):
        with pytest.raises(UsageError, match='--fold'):
            layout.select_fold(config, tmp_path, bad)


def test_a_missing_fold_of_stage_1_is_named_with_its_command(config, tmp_path):
    (tmp_path / 'stage1' / 'fold0').mkdir(parents=True)
    config.init_from, config.data.fold = str(tmp_path / 'stage1'), -1
    with pytest.raises(UsageError, match=r'configs/stage1\.py:fold0 --workdir=.*stage1$'):
        stages.train(config, tmp_path / 'stage2')


def test_a_fold_that_is_not_trained_is_named(config, tmp_path):
    config.data.fold = -1
    Run(tmp_path / 'x').start(config)
    with pytest.raises(UsageError, match=r'fold0 has no checkpoint'):
        stages.evaluate(Run(tmp_path / 'x').config(), tmp_path / 'x')


@pytest.mark.parametrize('by', ['split', 'fold'])
def test_a_table_with_one_split_has_no_folds_to_train(config, tmp_path, monkeypatch, by):
    """A column `fold` has: there each image is held out once."""
    own = dataset_lib.examples(config)

    def stated(config):
        held_out = 0 if by == 'split' else config.data.fold
        return tuple(
            dataclasses.replace(e, side='validation' if i % 4 == held_out else 'train')
            for i, e in enumerate(own)
        )

    monkeypatch.setattr(dataset_lib, 'examples', stated)
    config.data.fold = -1
    if by == 'fold':
        folds.check(config)
        return
    with pytest.raises(UsageError, match='a column fold instead of split'):
        stages.train(config, tmp_path / 'x')
    assert not (tmp_path / 'x').exists()
