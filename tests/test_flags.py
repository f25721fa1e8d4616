"""Which flag belongs to which mode: what a mode would ignore is refused."""

import itertools

import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

from pneumojax import flags
from pneumojax.errors import UsageError

EVERYWHERE = {'config', 'mode', 'compilation_cache'}
VALUES = {
    'fold': '0', 'workdir': ['runs/x'], 'profile': '3', 'num_processes': '2', 'process_id': '0',
    'format': 'onnx', 'accept': 'any', 'seg': 'none', 'runtime': 'jax', 'precision': 'float32',
    'heatmap': 'true', 'overlays': 'false', 'report': 'false', 'show_names': 'true',
    'private': 'true', 'outputs': ['sr'], 'seg_for': 'positive', 'dead_letters': 'list',
}  # fmt: skip
GIVES = {'evaluate --input': {'input': 'x', 'output': 'y'}, 'evaluate --compare': {'compare': 'z'}}
MODES = [*absl_flags.FLAGS['mode'].parser.enum_values, *GIVES]


@pytest.fixture(autouse=True)
def parsed():
    """Flags may be read; afterwards they are as they were."""
    was_parsed = absl_flags.FLAGS.is_parsed()
    absl_flags.FLAGS.mark_as_parsed()
    yield
    if not was_parsed:
        absl_flags.FLAGS.unparse_flags()


def given(mode, **more):
    name = mode.split(' ')[0]
    return flagsaver.as_parsed(**{'mode': name} | GIVES.get(mode, {}) | more)


def test_every_flag_says_which_modes_read_it():
    ours = {flag.name for flag in absl_flags.FLAGS.flags_by_module_dict()[flags.__name__]}
    assert ours == flags.READ_BY.keys() | EVERYWHERE
    for name, modes in flags.READ_BY.items():
        assert {*modes} < {*MODES}, name


@pytest.mark.parametrize(('name', 'mode'), list(itertools.product(flags.READ_BY, MODES)))
def test_a_flag_that_the_mode_would_ignore_is_refused(name, mode):
    if mode.startswith('evaluate') and name in ('input', 'output', 'compare'):
        return  # these tell its three forms apart, see below
    with given(mode, **{name: VALUES.get(name, 'a')}):
        if flags.mode() in flags.READ_BY[name]:
            flags.require_read()
            return
        with pytest.raises(UsageError, match=f'^--{name} is not read by --mode={mode}, only by '):
            flags.require_read()


def test_an_external_evaluation_compares_nothing():
    with given('evaluate --input', compare='z'):
        assert flags.mode() == flags.EXTERNAL
        with pytest.raises(UsageError, match=r'^--compare is not read by --mode=evaluate --input'):
            flags.require_read()


@pytest.mark.parametrize('key', ['evaluation.rule', 'tta.flips', 'evaluation.batch_size'])
@pytest.mark.parametrize('mode', ['predict', 'serve', 'evaluate --input', 'evaluate', 'train'])
def test_how_to_evaluate_is_no_wish_of_those_who_use_the_rule(key, mode):
    name = f'config.{key}'
    absl_flags.DEFINE_string(name, None, '')
    absl_flags.FLAGS[name].present = 1
    try:
        with given(mode):
            if mode in ('evaluate', 'train'):
                flags.require_read()
                return
            with pytest.raises(UsageError, match='run --mode=evaluate with it first'):
                flags.require_read()
    finally:
        delattr(absl_flags.FLAGS, name)


def test_defaults_are_no_mistakes():
    for mode in MODES:
        with given(mode):
            flags.require_read()


def test_the_mode_that_is_meant_without_one_is_named():
    with flagsaver.as_parsed(input='x'), pytest.raises(UsageError, match='the mode if none'):
        flags.require_read()


def test_parts_of_a_training_need_a_coordinator():
    with given('train', num_processes='2'), pytest.raises(UsageError, match='--coordinator='):
        flags.coordinator()
    with given('train'):
        assert flags.coordinator() is None


@pytest.mark.parametrize('lacking', ['input', 'output'])
def test_an_external_evaluation_needs_both_folders(lacking):
    other = {'input': 'output', 'output': 'input'}[lacking]
    with flagsaver.as_parsed(mode='evaluate', **{other: 'x'}):
        assert flags.mode() == flags.EXTERNAL
        with pytest.raises(UsageError, match=f'^--mode=evaluate --input needs --{lacking}$'):
            flags.required(getattr(flags, lacking.upper()))
