"""The wheel and the source distribution, used outside the repository."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

import pneumojax
from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())
# Where each folder of the repository lies in a wheel.
PLACES = {
    'pneumojax': 'pneumojax',
    'configs': 'pneumojax/configs',
    'third_party': 'pneumojax/third_party',
}


def files(folder):
    paths = (path for path in (REPOSITORY / folder).rglob('*') if path.is_file())
    return {p.relative_to(REPOSITORY).as_posix() for p in paths if '__pycache__' not in p.parts}


def test_no_package_is_forgotten():
    found = {pathlib.PurePath(f).parent for f in files('pneumojax') | files('configs')}
    dotted = {'.'.join(path.parts) for path in found}
    expected = {name if name.startswith('pneumojax') else f'pneumojax.{name}' for name in dotted}
    listed = set(PROJECT['tool']['setuptools']['packages'])
    assert listed == expected | {'pneumojax.third_party'}


def test_the_version_is_the_same_everywhere():
    version = pneumojax.__version__
    assert re.fullmatch(r'\d+\.\d+\.\d+', version)
    assert f'\n## {version}' in (REPOSITORY / 'CHANGELOG.md').read_text()
    assert f'\nversion: {version}\n' in (REPOSITORY / 'CITATION.cff').read_text()


def test_no_dependency_of_the_program_is_under_the_gpl():
    """GPLv3 code is only ever asked for by name, in an extra that says so."""
    extras = PROJECT['project']['optional-dependencies']
    gpl = [name for name, needed in extras.items() if any('libjpeg>' in n for n in needed)]
    assert gpl == ['codecs-gpl']
    assert not [d for d in PROJECT['project']['dependencies'] if d.startswith('pylibjpeg-libjpeg')]


def test_every_dependency_has_a_lower_and_an_upper_bound():
    """So that .ci/bounds can test and audit both, and no later version arrives by itself."""
    needed = [*PROJECT['build-system']['requires'], *PROJECT['project']['dependencies']]
    for extra in PROJECT['project']['optional-dependencies'].values():
        needed += extra
    for requirement in map(Requirement, needed):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert requirement.name == 'pneumojax' or operators == {'>=', '<'}, requirement


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """A wheel and a source distribution, built from a copy, as a build leaves files behind."""
    folder = tmp_path_factory.mktemp('distributions')
    source = folder / 'source'
    everywhere = shutil.ignore_patterns('__pycache__')
    at_the_top = shutil.ignore_patterns(
        '*.egg-info', '.git', '.venv', '.hypothesis', '.*_cache', 'build', 'dist', 'runs', 'data'
    )

    def ignored(folder: str, names: list[str]) -> set[str]:
        here = pathlib.Path(folder) == REPOSITORY
        return everywhere(folder, names) | (at_the_top(folder, names) if here else set())

    shutil.copytree(REPOSITORY, source, ignore=ignored)
    script = 'from setuptools import build_meta as b; b.build_wheel(".."); b.build_sdist("..")'
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return folder


@pytest.fixture(scope='module')
def installed(distributions, tmp_path_factory):
    """A folder that holds the installed wheel, and nothing else of ours."""
    target = tmp_path_factory.mktemp('installed')
    (wheel,) = distributions.glob('*.whl')
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target']
    subprocess.run([*pip, target, wheel], check=True, capture_output=True)
    return target


def run(installed, *command, cwd):
    environment = os.environ | {'PYTHONPATH': str(installed), 'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_what_a_wheel_holds(distributions):
    (wheel,) = distributions.glob('*.whl')
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in PLACES.items():
        assert {f.replace(folder, place, 1) for f in files(folder)} <= held
    assert {name.split('/')[0] for name in held if '.dist-info/' not in name} == {'pneumojax'}
    licences = {name.split('/licenses/')[1] for name in held if '/licenses/' in name}
    theirs = {name for name in files('third_party') if name.endswith('LICENSE')}
    assert licences == {'LICENSE', *theirs}


@pytest.mark.slow
def test_what_a_source_distribution_holds(distributions):
    (archive,) = distributions.glob('*.tar.gz')
    with tarfile.open(archive) as tar:
        held = {name.split('/', 1)[1] for name in tar.getnames() if '/' in name}
    wanted = {'LICENSE', 'README.md', 'CHANGELOG.md', 'CITATION.cff', 'pyproject.toml'}
    wanted |= {'CONTRIBUTING.md', 'SECURITY.md', '.editorconfig', '.pre-commit-config.yaml'}
    for folder in (*PLACES, 'tests', 'docs', 'benchmarks', '.ci', '.github'):
        wanted |= files(folder)
    assert wanted <= held


@pytest.mark.slow
def test_the_command_is_the_module(installed, tmp_path):
    command = installed / 'bin' / 'pneumojax'
    by_command = run(installed, command, '--help', cwd=tmp_path)
    by_module = run(installed, '-m', 'pneumojax.main', '--help', cwd=tmp_path)
    assert by_command.returncode == by_module.returncode
    assert by_command.stdout == by_module.stdout
    assert '--workdir' in by_command.stdout
    assert ' demo, ' in ' '.join(by_command.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize('config', ['stage1', 'configs/stage1.py'])
def test_an_installed_command_knows_the_configs(installed, tmp_path, config):
    """It gets as far as asking for data."""
    command = installed / 'bin' / 'pneumojax'
    done = run(installed, command, f'--config={config}', '--config.data.root=none', cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "data.root: there is no folder 'none'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_configs_of_an_installed_command_are_its_own(installed, tmp_path):
    script = (
        'import sys\n'
        'from pneumojax import config_files, flags, launch\n'
        'launch.parse_flags(sys.argv)\n'
        'print(flags.CONFIG.value.name, flags.CONFIG.value.seed, config_files.folder())'
    )
    found = run(installed, '-c', script, '--config=demo', '--config.seed=7', cwd=tmp_path)
    assert found.stdout.split() == ['demo', '7', str(installed / 'pneumojax' / 'configs')]
