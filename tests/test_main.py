"""The program as a person meets it: help, mistakes, exit statuses, the two set-up commands."""

import copy
import os
import pathlib
import re
import subprocess
import sys
from importlib.metadata import entry_points, version

import pytest
from absl import flags

from pneumojax import config as config_lib
from pneumojax import launch, main
from pneumojax.errors import UsageError
from pneumojax.flags import OLD_VALUES
from pneumojax.runs.run import Run
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[1]


def pneumojax(*arguments, cwd, **variables):
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': 'cpu'} | variables
    return subprocess.run(
        [sys.executable, '-m', 'pneumojax.main', *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def refused(result, *words):
    """One line on stderr that has the words, and exit status 2."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith('pneumojax: ')]
    assert len(lines) == 1, result.stderr
    assert 'Traceback' not in result.stderr
    for word in words:
        assert word in lines[0]


def test_help_can_be_read(tmp_path):
    result = pneumojax('--help', cwd=tmp_path)
    assert result.returncode == 0
    assert 'configs/demo.py' in result.stdout
    assert '--workdir' in result.stdout
    assert len(result.stdout.splitlines()) < 120


def test_the_version_is_said(tmp_path):
    result = pneumojax('--version', cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f'pneumojax {version("pneumojax")}\n')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ([], ['--config=configs/NAME.py', 'configs/demo.py']),
        (['--mode=fly'], ['mode', 'fly']),
        (['--config=nowhere.py'], ['nowhere.py']),
        (['--config={configs}/stage1.py', '--config.no_such_key=1'], ['no_such_key']),
        (['--config={configs}/stage1.py', '--config.image_size=0'], ['image_size', '0']),
        (['--config={configs}/stage1.py', '--config.image_size=big'], ['image_size', 'big']),
        (['--config={configs}/stage1.py', 'evaluate'], ['did you mean --mode=evaluate?']),
        (['--mode=evaluate', '--workdir=nowhere'], ['nowhere', 'config.json']),
        (['--mode=convert'], ['--input']),
        (['--mode=predict', '--precision=mixed'], ['--precision=mixed', 'bfloat16_checked']),
        (['--precision', 'half'], ['--precision=half', 'bfloat16_checked|float32']),
        (['--config={configs}/stage1.py'], ['data/siim', 'configs/demo.py']),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, words, tmp_path):
    given = [a.format(configs=REPOSITORY / 'configs') for a in arguments]
    refused(pneumojax(*given, cwd=tmp_path), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ('image_siz=64', 'there is no such key; did you mean --config.image_size?'),
        ('optimiser.learning_rate=1', 'did you mean --config.optimizer.learning_rate?'),
        ('learning_rate=1', 'did you mean --config.optimizer.learning_rate?'),
        ('swa.knd=ema', 'did you mean --config.swa.kind?'),
        ('image_size.x=3', 'there is no such key'),
        ('zzzzzz=3', 'docs/reference/config.md'),
        ('nonsense', 'docs/reference/config.md'),
    ],
)
@pytest.mark.parametrize('config', [['--config=demo'], ['--config', 'stage1:fold1']])
def test_a_misspelt_key_of_the_config_is_answered_in_plain_words(given, words, config, said):
    line = said(*config, f'--config.{given}')
    assert line.startswith(f'pneumojax: --config.{given.partition("=")[0]}: ')
    assert words in line


@pytest.fixture
def said(monkeypatch, capsys):
    """What is said about unusable arguments, by flags of its own."""

    def parse(*arguments):
        argv = ['pneumojax', *arguments]
        monkeypatch.setattr(sys, 'argv', argv)
        monkeypatch.setattr(flags, 'FLAGS', copy.deepcopy(flags.FLAGS))
        with pytest.raises(SystemExit) as ended:
            launch.parse_flags(argv)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return parse


def test_a_misspelt_flag_is_answered_with_what_may_be_meant(said):
    assert 'Did you mean: workdir' in said('--workdri=x')
    assert said('--config.seed=3').endswith(
        '--config.seed changes a config: give --config=NAME before it'
    )


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['predict', '--input=x'], "'predict'; did you mean --mode=predict?"),
        (['fly'], "'fly'; every option starts with --"),
    ],
)
def test_words_that_are_no_options_are_refused(argv, words):
    with pytest.raises(UsageError) as refusal:
        launch.require_no_words(['pneumojax', *argv])
    assert words in str(refusal.value)
    launch.require_no_words(['pneumojax'])


@pytest.mark.skipif(bool(entry_points(group='jax_plugins')), reason='for machines without a GPU')
@pytest.mark.parametrize(
    ('platform', 'arguments'),
    [
        ('cuda', ['--config=demo']),
        ('no_such', ['--mode=predict', '--workdir={run}', '--input={run}', '--output={out}']),
        pytest.param('tpu', ['--mode=export', '--workdir={run}', '--output={out}'],
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_devices_that_are_not_here_are_named(tmp_path, platform, arguments):
    out = tmp_path / 'out'
    out.mkdir()
    places = {'run': write_run(tmp_path / 'run').path, 'out': out / 'out'}
    given = [a.format(**places) for a in arguments]
    refused(pneumojax(*given, cwd=out, JAX_PLATFORMS=platform), f'JAX_PLATFORMS={platform}: JAX')
    assert not list(out.iterdir())


def test_every_mode_has_its_handler():
    assert [*main.HANDLERS] == flags.FLAGS['mode'].parser.enum_values


def test_every_old_value_names_a_value_of_today():
    values = flags.FLAGS['precision'].parser.enum_values
    assert {*OLD_VALUES.values()} <= {*values}
    assert not {*OLD_VALUES} & {*values}


def test_the_run_directory_of_another_config_is_left_alone(config, tmp_path):
    run = Run(tmp_path / 'run')
    run.start(config)
    run.checkpoints.path(3).mkdir(parents=True)
    (tmp_path / 'changed.json').write_text(config_lib.to_json(config))
    before = (run / 'config.json').read_text()
    result = pneumojax(
        f'--config={REPOSITORY}/configs/stage1.py', f'--workdir={run.path}',
        f'--config.data.root={config.data.root}', f'--config.data.cache={config.data.cache}',
        '--config.model.pretrained=', cwd=tmp_path,
    )  # fmt: skip
    refused(result, str(run.path), 'another config')
    assert (run / 'config.json').read_text() == before


def test_a_prediction_under_another_config_is_refused(config, tmp_path):
    """It would predict with the run's own, whatever the command says."""
    run = Run(tmp_path / 'run')
    run.start(config)
    result = pneumojax(
        f'--config={REPOSITORY}/configs/stage1.py', f'--workdir={run.path}', '--mode=predict',
        f'--input={tmp_path}', f'--output={tmp_path}/out', cwd=tmp_path,
    )  # fmt: skip
    refused(result, str(run.path), 'averaging.start: 1 -> 67', 'leave out --config')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('mode', ['evaluate', 'predict', 'export'])
def test_a_run_that_learned_without_labels_is_only_a_start(mode, config, tmp_path):
    config.loss.bce = config.loss.dice = 0.0
    config.loss.restoration, config.augment.hide = 1.0, 0.5
    run = Run(tmp_path / 'run')
    run.start(config)
    places = [f'--input={tmp_path}'] * (mode == 'predict')
    places += [f'--output={tmp_path}/out'] * (mode != 'evaluate')
    result = pneumojax(f'--mode={mode}', f'--workdir={run.path}', *places, cwd=tmp_path)
    refused(result, str(run.path), 'without labels', f'--config.init_from={run.path}')
    assert not (tmp_path / 'out').exists()


def test_the_readme_has_its_two_set_up_commands():
    text = (REPOSITORY / 'README.md').read_text()
    blocks = [block.strip() for block in re.findall(r'```bash\n(.*?)```', text, re.S)]
    assert (
        blocks[0] == "pip install -e '.[cpu]' && python -m pneumojax.main --config=configs/demo.py"
    )
    assert "pip install -e '.[test]' && python -m pytest" in blocks


def test_runs_are_evaluated_and_compared_on_images_from_elsewhere(phantoms, tmp_path):
    run = write_run(tmp_path / 'run')
    how = ['--mode=evaluate', f'--workdir={run.path}', f'--input={phantoms}', '--runtime=jax']
    refused(pneumojax(*how, cwd=tmp_path), '--mode=evaluate --input needs --output')
    assert not (tmp_path / 'out').exists()
    done = pneumojax(*how, f'--output={tmp_path}/out', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'Mean Dice' in done.stdout
    assert (run / 'per_image.csv').exists() is False
    both = ['--mode=evaluate', f'--workdir={tmp_path}/out', f'--compare={tmp_path}/out']
    done = pneumojax(*both, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'on the 40 images that both evaluated' in done.stdout
