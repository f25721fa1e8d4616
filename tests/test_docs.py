"""What the pages of the documentation say is so: links lead on, commands parse, code runs."""

import ast
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import cv2
import numpy as np
import pytest

from pneumojax import save_pretrained
from pneumojax.data.files import inputs
from pneumojax.data.phantoms import phantom
from pneumojax.prediction.load import load
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runtimes.export import export
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ('*.md', 'docs/**/*.md', 'benchmarks/**/*.md')
    for path in REPOSITORY.glob(pattern)
)


def blocks(path, language):
    """(line, content) of every fenced block of a language; indented ones (in lists) too."""
    text = path.read_text()
    found = re.finditer(rf'^( *)```{language}\n(.*?)^\1```', text, re.MULTILINE | re.DOTALL)
    return [(text[: m.start()].count('\n') + 1, m[2].replace(f'\n{m[1]}', '\n')) for m in found]


def name(path):
    return path.relative_to(REPOSITORY).as_posix()


def test_every_page_is_in_the_sites_list():
    listed = re.findall(r'^([\w/-]+)$', (REPOSITORY / 'docs/index.md').read_text(), re.MULTILINE)
    folder = REPOSITORY / 'docs'
    pages = {path.relative_to(folder).with_suffix('').as_posix() for path in folder.rglob('*.md')}
    assert sorted(listed) == sorted(pages - {'index'})


def test_every_relative_link_leads_to_a_file():
    """Also on GitHub, where the pages are read as they are."""
    pages = [*PAGES, *REPOSITORY.glob('third_party/**/*.md'), *REPOSITORY.glob('.github/**/*.md')]
    for path in pages:
        for address in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
            if not re.match(r'[a-z]+:|#', address):
                assert (path.parent / address.split('#')[0]).exists(), (path, address)


# --- commands ----------------------------------------------------------------------------------


def commands(block):
    """The simple commands of a shell block as lists of words; variables become 0."""
    text = re.sub(r'(^|\s)#.*', '', block.replace('\\\n', ' '))
    text = re.sub(r'\$(\w+|\{\w+\}|\?)', '0', text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.wordchars += ':@%+,[]{}'
    words, found = [], []
    lexer.commenters, lexer.whitespace = '', ' \t'
    for word in lexer:
        if word == '\n' or set(word) <= set(';&|()\n'):
            found.append(words)
            words = []
        else:
            words.append(word)
    found.append(words)
    # What comes before: VARIABLE=value, and words of the shell's own.
    own = re.compile(r'\w+=.*|then|do|else|nohup|nice|time|exec')
    for words in found:
        while words and own.fullmatch(words[0]):
            words.pop(0)
    return [words for words in found if words]


SHELL = [
    (f'{name(path)}:{line}', block)
    for path in PAGES
    for language in ('bash', 'sh', 'shell', 'console')
    for line, block in blocks(path, language)
]
HEADS = [  # the commands that configs and the program's own help state
    (name(path), re.split(r'  +', re.sub(r' *\\\n *', ' ', command).strip())[0])
    for path in [*sorted((REPOSITORY / 'configs').rglob('*.py')), REPOSITORY / 'pneumojax/main.py']
    for command in re.findall(
        r'^ +(python -m pneumojax\.main (?:[^\n\\]|\\\n *)*)',
        ast.get_docstring(ast.parse(path.read_text())) or '',
        re.MULTILINE,
    )
]
COMMANDS = [(place, words) for place, block in SHELL + HEADS for words in commands(block)]


def arguments(words):
    """Those of a command of ours; None for another command."""
    if words[0] == 'pneumojax':
        return words[1:]
    if words[:3] in (['python', '-m', 'pneumojax.main'], ['python3', '-m', 'pneumojax.main']):
        return words[3:]
    return None


def test_commands_are_found_in_every_form():
    block = (
        'A=1 python -m x.y --a="b c" \\\n  --d=$E && pneumojax --f | tee g; if h\nthen i # j\nfi\n'
    )
    assert commands(block) == [
        ['python', '-m', 'x.y', '--a=b c', '--d=0'], ['pneumojax', '--f'], ['tee', 'g'],
        ['if', 'h'], ['i'], ['fi'],
    ]  # fmt: skip
    assert arguments(['pneumojax', '--f']) == ['--f']
    assert len([1 for _, words in COMMANDS if arguments(words) is not None]) > 20


@pytest.fixture(scope='module')
def parsed():
    """What each of our commands comes to: '' or the complaint. One process, a fork for each."""
    script = (
        'import contextlib, io, json, os, sys\n'
        'from absl import flags\n'
        'from pneumojax import config, launch, main\n'
        'for words in json.load(sys.stdin):\n'
        '    if os.fork():\n'
        '        os.wait()\n'
        '        continue\n'
        '    complaint = io.StringIO()\n'
        '    try:\n'
        '        with contextlib.redirect_stderr(complaint):\n'
        '            sys.argv = ["pneumojax", *words]  # ml_collections looks there\n'
        '            rest = launch.parse_flags(sys.argv)\n'
        '            rest[1:] and print("unknown argument", rest[1:], file=sys.stderr)\n'
        '            c = flags.FLAGS.config\n'
        '            c is None or config.check(c)\n'
        '    except BaseException as e:\n'
        '        complaint.write(f"{type(e).__name__}: {e}")\n'
        '    print(json.dumps(complaint.getvalue()), flush=True)\n'
        '    os._exit(0)\n'
    )
    ours = [arguments(words) for _, words in COMMANDS]
    wanted = json.dumps([words for words in ours if words is not None])
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script], input=wanted,
        cwd=REPOSITORY, env=os.environ | {'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': 'cpu'},
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    answers = iter(map(json.loads, result.stdout.splitlines()))
    return [None if words is None else next(answers) for words in ours]


@pytest.mark.parametrize('index', range(len(COMMANDS)), ids=lambda i: COMMANDS[i][0])
def test_every_command_can_be_given(index, parsed):
    """Ours: flags, config file and overrides are understood. Others: what they name is there."""
    _, words = COMMANDS[index]
    if arguments(words) is not None:
        assert parsed[index] == ''
    elif words[:2] == ['pip', 'install']:
        project = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['project']
        wanted = [extra for word in words for extra in re.findall(r'\.\[([\w,-]+)\]', word)]
        assert {e for text in wanted for e in text.split(',')} <= {
            *project['optional-dependencies']
        }
    elif words[:2] == ['python', '-m']:
        assert importlib.util.find_spec(words[2]) is not None, words[2]
    elif words[0] == 'python':
        assert (REPOSITORY / words[1]).is_file(), words[1]


@pytest.mark.parametrize(('place', 'block'), SHELL, ids=[place for place, _ in SHELL])
def test_every_shell_block_is_well_formed(place, block):
    result = subprocess.run(['bash', '-n'], input=block, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# --- Python ------------------------------------------------------------------------------------

# The README's is run by tests/test_public_face.py.
PYTHON = [path for path in PAGES if blocks(path, 'python') and name(path) != 'README.md']


@pytest.fixture(scope='module')
def folder(tmp_path_factory, evaluated):
    """What pages speak of: an evaluated run, a folder of radiographs, a prediction."""
    root = tmp_path_factory.mktemp('docs')
    run = write_run(root / 'runs' / 'stage2')
    phantom.write_dataset(root / 'night', num_images=3, size=64, seed=1, positive_share=0.4)
    predict([run], root / 'night', root / 'masks', Options(runtime='jax'))
    seg = root / 'masks' / 'seg'
    shutil.copy(next(seg.iterdir()), seg / 'IMAGE.dcm')
    export(run.config(), run, str(root / 'exported'), 'onnx')
    save_pretrained(evaluated.path, root / 'stage2')
    radiograph = next((root / 'night').rglob('*.dcm'))
    shutil.copy(radiograph, root / 'image.dcm')
    image = inputs.read(radiograph).image[:50]
    cv2.imwrite(str(root / 'radiograph.png'), image)
    return root


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
@pytest.mark.parametrize('path', PYTHON, ids=name)
def test_every_python_block_runs(path, folder, monkeypatch, capsys):
    """The blocks of a page run one after another, as in a notebook."""
    monkeypatch.chdir(folder)
    namespace = {'__name__': 'a_page'}
    for line, block in blocks(path, 'python'):
        exec(compile('\n' * line + block, name(path), 'exec'), namespace)
    if path.stem == 'why_positive':
        assert 'at least 0 px must reach 0.5' in capsys.readouterr().out
    if path.stem == 'export':
        ours = load('exported', runtime='onnxruntime', precision='float32')
        expected = ours(namespace['image'])
        np.testing.assert_allclose(namespace['probability'], expected, atol=1e-6)
        np.testing.assert_array_equal(namespace['mask'], ours.mask(expected))
        assert namespace['mask'].any()
        assert not namespace['mask'].all()
    if path.stem == 'notebook':
        assert namespace['logits'].shape == (1, 64, 64, 1)
        assert int(namespace['train_state'].step) == 3
