"""Renamed keys: their old names work in config.json, on the command line and in config files."""

import copy
import json
import subprocess
import sys

import ml_collections
import pytest

from configs import base, demo
from pneumojax import config as config_lib
from pneumojax import config_files
from pneumojax.errors import UsageError
from pneumojax.runs import layout
from pneumojax.runs.run import Run

# Old name, its name today, a value other than the default.
CASES = [
    ('swa.kind', 'averaging.kind', 'ema'),
    ('swa.start', 'averaging.start', 3),
    ('swa.every_steps', 'averaging.every_steps', 7),
    ('swa.decay', 'averaging.decay', 0.5),
    ('swa.bn_examples', 'averaging.bn_examples', -1),
    ('model.image_head', 'model.classification_head', 'gate'),
    ('loss.image', 'loss.classification', 0.25),
    ('loss.dice_over', 'loss.dice_reduction', 'image'),
    ('augment.tone', 'augment.intensity', 0.75),
]
parametrized = pytest.mark.parametrize(('old', 'new', 'value'), CASES, ids=[c[0] for c in CASES])


def test_every_renamed_key_has_its_case():
    known = {*config_lib.flatten(base.get_config())}
    assert {new for _, new, _ in CASES} <= known
    assert not known & {old for old, _, _ in CASES}
    for old, new in config_lib.RENAMED.items():
        assert any(a.startswith(old) and b.startswith(new) for a, b, _ in CASES)


# --- config.json -------------------------------------------------------------------------------

# runs/demo/config.json as it was written before the keys were renamed.
BEFORE = """
    {"augment": {"affine": 0.5, "border": "constant", "brightness": 0.2, "contrast": 0.2, "crop":
    0.25, "crop_min": 0.8046875, "elastic_affine": 3.6, "elastic_alpha": 120.0, "elastic_sigma":
    6.0, "flip": 0.5, "gamma": [80, 120], "grid_distort": 0.3, "grid_steps": 5, "optical_distort":
    2.0, "optical_shift": 0.5, "rotate": 10.0, "scale": 0.1, "shift": 0.1, "tone": 0.3,
    "vertical_flip": 0.0, "warp": 0.0, "window": 0, "window_on_lesion": 0.0}, "batch_size": 16,
    "checkpoint": {"every_epochs": 1, "keep": 2}, "data": {"cache": "runs/cache", "fold": 0,
    "masks": "", "num_examples": 0, "num_folds": 5, "on_device": false, "patients": "", "phantoms":
    {"num_images": 600, "positive_share": 0.3, "seed": 0, "size": 256}, "root": "data/phantoms",
    "split_seed": 0, "table": "", "workers": 0}, "evaluation": {"ablation_seeds": 3, "batch_size":
    40, "bootstrap": 2000, "compare": true, "every_epochs": 2, "regions": false, "rule": "single",
    "weights": "average"}, "image_size": 256, "init_from": "", "init_weights": "average",
    "log_every_steps": 10, "loss": {"bce": 1.0, "dice": 1.0, "dice_over": "batch", "focal": 0.0,
    "focal_gamma": 2.0, "image": 0.0, "smooth": 1.0}, "model": {"channels": 1, "dtype": "float32",
    "frozen_batch_norm": false, "image_head": "none", "normalization": "unit", "pretrained": "",
    "stage_sizes": [3, 4, 6, 3], "width": 16}, "name": "demo", "num_epochs": 80, "optimizer":
    {"accumulate": 1, "clip_norm": 0.0, "final_learning_rate": 0.0001, "freeze_encoder_epochs": 0,
    "learning_rate": 0.003, "momentum": 0.9, "name": "adam", "warmup_epochs": 0.0, "weight_decay":
    0.0}, "sampling": {"positive_share": [0.5]}, "seed": 0, "stages": {"stage1": {"image_size": 64,
    "num_epochs": 16, "swa": {"start": 12}}, "stage2": {"image_size": 128, "num_epochs": 10, "swa":
    {"start": 7}}}, "swa": {"bn_examples": 0, "decay": 0.999, "every_steps": 0, "kind": "mean",
    "start": 67}, "tta": {"flips": ["horizontal"]}}
"""


def write(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(content))
    return Run(folder)


def test_a_run_of_before_loads_and_is_continued_by_the_config_of_today(tmp_path):
    run, today = write(tmp_path / 'run', json.loads(BEFORE)), demo.get_config()
    config_lib.check(run.config())
    assert config_lib.flatten(run.config()) == config_lib.flatten(today)
    run.start(today)
    assert json.loads((run / 'config.json').read_text()) == json.loads(BEFORE)
    run.checkpoints.path(3).mkdir(parents=True)
    today.averaging.decay = 0.5
    with pytest.raises(UsageError, match=r'averaging\.decay: 0\.999 -> 0\.5'):
        run.start(today)


def test_both_spellings_of_a_configuration_are_equal():
    before, today = config_lib.from_json(BEFORE), demo.get_config()
    assert config_lib.differences(before, today) == config_lib.differences(today, before) == []
    before.swa.decay = 0.5
    assert config_lib.differences(before, today) == ['averaging.decay: 0.5 -> 0.999']


@parametrized
def test_an_old_value_counts(old, new, value, tmp_path):
    content = json.loads(BEFORE)
    group, key = old.split('.')
    content[group][key] = value
    content['stages']['stage2'] = {group: {key: value}}
    config = write(tmp_path / 'run', content).config()
    assert config_lib.get(config, new) == value
    assert config_lib.flatten(config.stages.stage2) == {new: value}
    assert old not in config_lib.flatten(config)
    if new == 'model.classification_head':  # it needs a weight in both
        config.loss.classification = 0.1
    elif new == 'loss.classification':
        config.model.classification_head = 'gate'
    _, (stage, _) = layout.children(config, tmp_path)
    assert config_lib.get(stage, new) == value


def test_a_converted_network_has_few_groups(tmp_path):
    model = {'width': 8, 'channels': 1, 'image_head': 'auxiliary'}
    config = write(tmp_path, {'name': 'converted', 'model': model}).config()
    assert config.model.classification_head == 'auxiliary'
    assert 'averaging' not in config
    assert 'loss' not in config


# --- the command line --------------------------------------------------------------------------


def parse(*arguments):
    """The configuration that a command line means, as the program finds it."""
    script = (
        'import sys\n'
        'from pneumojax import config, flags, launch\n'
        'launch.parse_flags(sys.argv)\n'
        'print(config.to_json(flags.CONFIG.value))'
    )
    result = subprocess.run(
        [sys.executable, '-c', script, *arguments], capture_output=True, text=True, check=True
    )
    return config_lib.from_json(result.stdout)


def test_old_names_on_the_command_line():
    config = parse('--config=stage1', *(f'--config.{old}={value}' for old, _, value in CASES))
    assert {new: config_lib.get(config, new) for _, new, _ in CASES} == {
        new: value for _, new, value in CASES
    }
    assert config_lib.flatten(config).keys() == config_lib.flatten(base.get_config()).keys()


def test_an_old_name_on_the_command_line_changes_a_stage():
    config = parse('--config=demo', '--config.stages.stage1.swa.start=2')
    assert config_lib.differences(demo.get_config(), config) == [
        'stages.stage1.averaging.start: 12 -> 2'
    ]


# --- a user's config file ----------------------------------------------------------------------


@parametrized
def test_old_names_in_a_users_file(old, new, value, tmp_path):
    group, key = old.split('.')
    path = tmp_path / 'mine.py'
    path.write_text(
        'from configs import base\n\n\n'
        'def get_config():\n'
        '    config = base.get_config()\n'
        f'    config.{old} = {value!r}\n'
        f'    assert config.{old} == config.{new} == {value!r}\n'
        f'    config.stages = {{"a": {{"{group}": {{"{key}": {value!r}}}}}}}\n'
        '    return config\n'
    )
    config = config_files.load(str(path))
    assert config_lib.differences(base.get_config(), config) == sorted(
        [f'{new}: {config_lib.get(base.get_config(), new)!r} -> {value!r}',
         f'stages.a.{new}: None -> {value!r}']
    )  # fmt: skip


def test_a_file_that_names_every_key_itself(tmp_path):
    """It builds its own ConfigDict, from before the keys were renamed, with a reference."""
    (tmp_path / 'mine.py').write_text(
        'import json, ml_collections\n\n\n'
        'def get_config():\n'
        f'    values = json.loads("""{BEFORE}""")\n'
        '    values["stages"] = {}\n'
        '    config = ml_collections.ConfigDict(values)\n'
        '    config.swa.start = config.get_ref("num_epochs") - 13\n'
        '    return config\n'
    )
    config = parse(f'--config={tmp_path / "mine.py"}', '--config.num_epochs=20',
                   '--config.swa.kind=ema')  # fmt: skip
    assert (config.averaging.start, config.averaging.kind) == (7, 'ema')
    assert 'swa' not in list(config)


# --- the class ---------------------------------------------------------------------------------


def test_old_names_in_every_way_that_a_config_dict_is_used():
    config = base.get_config()
    assert 'swa' in config
    assert 'image_head' in config.model
    assert hasattr(config.loss, 'dice_over')
    assert config['swa.decay'] == config.swa['decay'] == config.get('swa').decay == 0.999
    assert config.get('swa', None) is config.averaging
    config.update({'swa': {'decay': 0.5}, 'model': {'image_head': 'gate'}})
    config.update_from_flattened_dict({'swa.start': 4, 'augment.tone': 0.1})
    assert (config.averaging.decay, config.averaging.start) == (0.5, 4)
    assert (config.augment.intensity, config.model.classification_head) == (0.1, 'gate')
    config.name = config.model.get_ref('image_head')
    assert config.model.get_type('image_head') is str
    config.model.classification_head = 'auxiliary'
    assert config.name == 'auxiliary'
    for same in (config.copy_and_resolve_references(), copy.deepcopy(config)):
        assert same.swa.start == 4
        same.swa.start = 5
        assert (same.averaging.start, config.averaging.start) == (5, 4)
    config.lock()
    config.swa.start = 6
    assert config.averaging.start == 6
    config.swa = ml_collections.ConfigDict({**config.averaging, 'start': 7})
    assert config.averaging.start == 7


def test_an_old_name_means_nothing_in_another_group():
    config = base.get_config().lock()
    for group, name in (('optimizer', 'tone'), ('model', 'image'), ('data', 'swa')):
        assert name not in config[group]
        with pytest.raises(AttributeError):
            setattr(config[group], name, 1)
    with config.unlocked():
        config.stages = {'image': {'swa': {'start': 1}}, 'swa': {}}  # names of the user's own
    assert [*config.stages] == ['image', 'swa']
