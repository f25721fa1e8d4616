"""Configurations: those that are there can work, and what cannot is named."""

import importlib
import json
import pathlib
import re
import shlex

import ml_collections
import pytest
from absl import flags as absl_flags

from configs import base
from pneumojax import config as config_lib
from pneumojax import config_files, flags
from pneumojax.config_schema import KEYS
from pneumojax.errors import UsageError
from pneumojax.runs import layout
from pneumojax.runs.run import Run

CONFIGS = pathlib.Path(base.__file__).parent
NAMES = config_files.names()


def get_config(name):
    return importlib.import_module(f'configs.{name.replace("/", ".")}').get_config()


def keys(config):
    """All dotted keys, `stages` as one."""
    return {*config_lib.flatten(config), 'stages'}


# --- every config passes, bad values do not ----------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_every_config_can_work(name, tmp_path):
    config = get_config(name)
    config_lib.check(config)
    assert keys(config) - keys(base.get_config()) <= {
        key for key in keys(config) if key.startswith('stages.')
    }
    for stage, run in layout.runs(config, tmp_path):
        config_lib.check(stage)
        assert keys(stage) == keys(base.get_config())  # a stage changes keys, it adds none
        assert config_lib.differences(config_lib.from_json(config_lib.to_json(stage)), stage) == []
        assert str(run.path).startswith(str(tmp_path))


@pytest.mark.parametrize('name', sorted({*NAMES} - {'base'}))
def test_a_configs_docstring_has_its_command(name):
    """Its own, with flags that there are and keys that the config has."""
    text = importlib.import_module(f'configs.{name.replace("/", ".")}').__doc__
    lines = re.findall(r'^    (python .+)$', text.replace('\\\n', ''), re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    assert any(f'configs/{name}.py' in command[3] for command in commands)
    known = {x.name for x in vars(flags).values() if isinstance(x, absl_flags.FlagHolder)}
    for command in commands:
        assert command[:3] == ['python', '-m', 'pneumojax.main']
        place, _, argument = command[3].removeprefix('--config=').partition(':')
        assert argument in ('', 'folds')
        config = config_files.load(place)
        for word in command[4:]:
            flag, _, value = word.removeprefix('--').partition('=')
            assert value or flag == 'config.model.pretrained'
            if flag.startswith('config.'):
                config.update_from_flattened_dict({flag.removeprefix('config.'): value})
            else:
                assert flag in known


def test_the_paper_recipe_is_the_two_stages(tmp_path):
    """Key for key, but for the names and where stage 1's weights are found."""
    for (stage, _), name in zip(layout.runs(get_config('recipes/paper'), tmp_path),
                                ('stage1', 'stage2'), strict=True):  # fmt: skip
        changed = {text.split(':')[0] for text in config_lib.differences(get_config(name), stage)}
        expected = {'init_from', 'model.pretrained'} if name == 'stage2' else set()
        assert changed == {'evaluation.compare'} | expected
        assert stage.init_from == ('' if name == 'stage1' else str(tmp_path / 'stage1'))


def test_swa_follows_the_epochs():
    for name, last in (('stage1', 13), ('stage2', 5)):
        config = get_config(name)
        assert config.num_epochs - config.averaging.start == last
        config.num_epochs = 30
        assert config.averaging.start == 30 - last
        config.num_epochs = 3  # fewer than are averaged: all of them
        config_lib.check(config)


BAD = [
    ('name', ''), ('name', 'a/b'), ('seed', -1),
    ('image_size', 0), ('image_size', 15), ('image_size', 5000), ('image_size', -256),
    ('batch_size', 0), ('num_epochs', 0), ('init_weights', 'best'), ('log_every_steps', 0),
    ('data.fold', -2), ('data.fold', 5), ('data.num_folds', 1), ('data.split_seed', -1),
    ('data.num_examples', -1), ('data.workers', -1),
    ('model.channels', 2), ('model.width', 0), ('model.dtype', 'float16'),
    ('model.normalization', 'none'), ('model.stage_sizes', (3, 4, 6)),
    ('model.stage_sizes', (3, 4, 6, 0)),
    ('optimizer.name', 'lamb'), ('optimizer.learning_rate', 0.0),
    ('optimizer.learning_rate', float('inf')), ('loss.bce', 1e308),
    ('augment.elastic_sigma', 1e9),
    ('optimizer.learning_rate', float('nan')), ('optimizer.final_learning_rate', -1e-9),
    ('optimizer.weight_decay', -1.0), ('optimizer.clip_norm', -1.0), ('optimizer.accumulate', 0),
    ('optimizer.momentum', 1.0), ('optimizer.momentum', -0.1),
    ('optimizer.freeze_encoder_epochs', -1), ('optimizer.freeze_encoder_epochs', 81),
    ('optimizer.warmup_epochs', -0.5), ('optimizer.warmup_epochs', 80.5),
    ('loss.bce', -1.0), ('loss.dice', -1.0), ('loss.smooth', -1.0), ('loss.focal', -1.0),
    ('loss.focal_gamma', -0.5), ('loss.classification', -0.5), ('loss.classification', 0.1),
    ('model.classification_head', 'both'), ('model.frozen_batch_norm', True),
    ('model.encoder', 'resnet50'), ('model.frozen_stages', 6), ('model.frozen_stages', 1),
    ('augment.flip', 1.5), ('augment.intensity', -0.1), ('augment.gamma', (0, 120)),
    ('augment.gamma', (120, 80)), ('augment.crop_min', 0.0), ('augment.scale', 1.0),
    ('augment.border', 'wrap'), ('augment.grid_steps', 0), ('augment.elastic_sigma', -1.0),
    ('augment.shift', -0.1), ('augment.optical_distort', -1.0), ('augment.rotate', -5.0),
    ('augment.window', 8), ('augment.window', 257), ('augment.window_on_lesion', 1.5),
    ('loss.dice_reduction', 'epoch'),
    ('sampling.positive_share', (0.5, 0.0)), ('sampling.positive_share', (1.1,)),
    ('averaging.kind', 'swa'), ('averaging.start', 80), ('averaging.every_steps', -1),
    ('averaging.decay', 1.0),
    ('averaging.decay', 0.0), ('averaging.bn_examples', -2), ('tta.flips', ('diagonal',)),
    ('evaluation.rule', 'double'), ('evaluation.weights', 'best'), ('evaluation.batch_size', 0),
    ('evaluation.every_epochs', -1), ('evaluation.bootstrap', 99),
    ('evaluation.ablation_seeds', 0),
    ('checkpoint.every_epochs', 0), ('checkpoint.keep', 0),
]  # fmt: skip


@pytest.mark.parametrize(('key', 'value'), BAD, ids=lambda x: str(x))
def test_a_bad_value_is_named(key, value):
    config = base.get_config()
    assert key in keys(config)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError) as e:
        config_lib.check(config)
    assert str(e.value).startswith(f'config.{key} is {value!r}: expected ')
    assert '\n' not in str(e.value)
    assert '{c' not in str(e.value)  # the other key's value stands there


def test_what_only_a_resnet_has_is_refused_for_another_encoder():
    config = base.get_config()
    config.model.encoder = 'efficientnet_lite0'
    config_lib.check(config)
    config.model.pretrained = 'imagenet'
    with pytest.raises(UsageError, match=r"model\.normalization is 'unit': expected 'symmetric'"):
        config_lib.check(config)
    config.model.normalization = 'symmetric'
    config_lib.check(config)
    config.model.stage_sizes = (1, 1, 1, 1)
    with pytest.raises(UsageError, match=r'model\.stage_sizes is \(1, 1, 1, 1\)'):
        config_lib.check(config)


@pytest.mark.parametrize(('key', 'value'), [('size', 31), ('positive_share', 1.5)])
def test_phantoms_are_checked_when_they_are_drawn(key, value):
    config = base.get_config()
    config.data.phantoms[key] = value
    config_lib.check(config)
    config.data.phantoms.num_images = 5
    with pytest.raises(UsageError, match=rf'config\.data\.phantoms\.{key} is {value}'):
        config_lib.check(config)


def test_some_loss_is_needed():
    config = base.get_config()
    config.loss.bce = config.loss.dice = 0.0
    with pytest.raises(UsageError, match=r'config\.loss'):
        config_lib.check(config)


@pytest.mark.parametrize(
    'changes', [{'image_sizes': 64}, {'averaging': {'begin': 1}}, {'averaging': 3}]
)
def test_a_stage_cannot_change_a_key_that_is_not_there(changes):
    config = get_config('demo')
    config.stages = {'stage1': changes}
    with pytest.raises(
        UsageError, match=r'config\.stages\.stage1\.(image_sizes|averaging\.begin|averaging): '
    ):
        config_lib.check(config)


@pytest.mark.parametrize('key', sorted(keys(base.get_config()) - {'stages'}))
def test_an_edited_config_json_is_one_line_at_worst(key):
    """A key is gone, or has a value of another type."""
    content, messages = json.loads(config_lib.to_json(base.get_config())), []
    *path, last = key.split('.')
    place = content
    for part in path:
        place = place[part]
    for change in (lambda: place.__setitem__(last, {'not': 'a value'}), lambda: place.pop(last)):
        change()
        try:
            config_lib.check(config_lib.from_json(json.dumps(content)))
        except UsageError as e:
            messages.append(str(e))
    assert not any('\n' in message for message in messages)
    if key in {bad for bad, _ in BAD}:  # a key that is looked at
        assert len(messages) == 2
        assert last in messages[1]


@pytest.mark.parametrize('key', sorted(keys(base.get_config())))
def test_a_value_of_any_kind_is_allowed_or_refused_in_one_line(key):
    values = [None, True, -1, 0.5, '', 'x\n', (), (1,), ('a', {}), {}, {'a': 1}, {'a': {'b': 1}}]
    messages = []
    for value in [*values, 10**400, float('nan'), float('inf')]:
        content = json.loads(config_lib.to_json(base.get_config()))
        *path, last = key.split('.')
        place = content
        for part in path:
            place = place[part]
        place[last] = value
        try:
            config_lib.check(ml_collections.ConfigDict(content))
        except UsageError as e:
            messages.append(str(e))
    assert len(messages) > 7  # most of these have the wrong type
    assert all(message.startswith('config.') for message in messages)
    assert not any('\n' in message for message in messages)


# --- as text -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_json_gives_back_the_same_values(name):
    config = get_config(name)
    again = config_lib.from_json(config_lib.to_json(config))
    before, after = config_lib.flatten(config), config_lib.flatten(again)
    assert after == before
    assert {k: type(v) for k, v in after.items()} == {k: type(v) for k, v in before.items()}
    assert isinstance(again.tta.flips, tuple)


def test_references_are_resolved():
    config = base.get_config()
    config.num_epochs = 40
    text = config_lib.to_json(config)
    assert json.loads(text)['averaging']['start'] == 27
    assert config_lib.from_json(text).averaging.start == 27
    assert config.averaging.start == 27
    config.num_epochs = 50  # the config itself still follows
    assert config.averaging.start == 37


def other(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + 'x'
    return (*value, 7) if isinstance(value, tuple) else value + 1


@pytest.mark.parametrize('key', sorted(keys(base.get_config()) - {'stages'}))
def test_every_difference_counts_but_the_free_ones(key):
    old, new = base.get_config(), base.get_config()
    value = config_lib.get(new, key)
    new.update_from_flattened_dict({key: other(value)})
    found = config_lib.differences(old, new)
    expected = set() if key in config_lib.FREE_KEYS else {f'{key}: {value!r} -> {other(value)!r}'}
    if key == 'num_epochs':
        expected.add('averaging.start: 67 -> 68')  # it follows
    assert set(found) == expected


# What the first runs had.
FIRST = """
    augment.affine augment.border augment.brightness augment.contrast augment.crop
    augment.crop_min augment.elastic_affine augment.elastic_alpha augment.elastic_sigma
    augment.flip augment.gamma augment.grid_distort augment.grid_steps augment.optical_distort
    augment.optical_shift augment.rotate augment.scale augment.shift augment.tone
    augment.vertical_flip augment.warp batch_size checkpoint.every_epochs checkpoint.keep
    data.cache data.fold data.num_examples data.num_folds data.patients data.phantoms.num_images
    data.phantoms.positive_share data.phantoms.seed data.phantoms.size data.root data.split_seed
    data.workers evaluation.batch_size evaluation.bootstrap evaluation.compare
    evaluation.every_epochs evaluation.rule evaluation.weights image_size init_from init_weights
    log_every_steps loss.bce loss.dice loss.smooth model.channels model.dtype
    model.normalization model.pretrained model.stage_sizes model.width name num_epochs
    optimizer.accumulate optimizer.clip_norm optimizer.final_learning_rate
    optimizer.freeze_encoder_epochs optimizer.learning_rate optimizer.momentum optimizer.name
    optimizer.warmup_epochs optimizer.weight_decay sampling.positive_share seed
    swa.bn_examples swa.decay swa.every_steps swa.kind swa.start
    tta.flips
"""


def test_every_key_has_a_row_and_younger_ones_say_what_older_runs_did(tmp_path):
    """A run from before a key goes on without it: it is neither another run nor unusable."""
    config = base.get_config()
    assert set(KEYS) == keys(config)
    younger = {key: row.absent for key, row in KEYS.items() if row.absent is not None}
    names = {k.replace('swa.', 'averaging.') for k in FIRST.split()}
    assert set(younger) == keys(config) - {'stages'} - {config_lib.RENAMED.get(k, k) for k in names}
    old = json.loads(config_lib.to_json(config))
    for key, value in younger.items():
        assert config_lib.get(config, key) == value
        group, name = key.split('.')
        del old[group][name]
    (tmp_path / 'config.json').write_text(json.dumps(old))
    run = Run(tmp_path)
    config_lib.check(run.config())
    run.start(config)
    run.checkpoints.path(3).mkdir(parents=True)
    config.loss.focal = 1.0
    with pytest.raises(UsageError, match=r'loss\.focal: 0\.0 -> 1\.0'):
        run.start(config)


def test_a_key_that_only_one_has_is_a_difference():
    old, new = base.get_config(), base.get_config()
    new.extra = 5
    assert config_lib.differences(old, new) == ['extra: None -> 5']
    assert config_lib.differences(new, old) == ['extra: 5 -> None']
    new = base.get_config()
    new.stages = {'a': {'image_size': 64}}
    assert config_lib.differences(old, new) == ['stages.a.image_size: None -> 64']
