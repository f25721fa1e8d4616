"""What the documentation says is so: commands parse, code runs, tables are the code's, the site
builds and asks for nothing from elsewhere."""

import ast
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from absl import flags as absl_flags

import pneumojax
from configs import base
from docs import architecture, docstrings, from_code
from pneumojax import config as config_lib
from pneumojax import flags
from pneumojax.data.phantoms import phantom
from pneumojax.prediction.outputs import FILES as PREDICTION_FILES
from pneumojax.prediction.outputs import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import FILES as RUN_FILES
from tests.test_architecture import LAYERS
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE, wait_for

SVG = '{http://www.w3.org/2000/svg}'
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
def folder(tmp_path_factory):
    """What pages speak of: an evaluated run, a folder of radiographs, a prediction."""
    root = tmp_path_factory.mktemp('docs')
    run = write_run(root / 'runs' / 'stage2')
    phantom.write_dataset(root / 'night', num_images=3, size=64, seed=1, positive_share=0.4)
    predict([run], root / 'night', root / 'masks', Options(runtime='jax'))
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
    if path.stem == 'notebook':
        assert namespace['logits'].shape == (1, 64, 64, 1)
        assert int(namespace['train_state'].step) == 3


# --- tables made from the code -----------------------------------------------------------------


def rows(table):
    """First cells of a table, without their marks."""
    return re.findall(r'^\| `([^`]+)` \|', table, re.MULTILINE)


def test_every_flag_is_in_the_reference():
    ours = absl_flags.FLAGS.flags_by_module_dict()[flags.__name__]
    text = from_code.flags()
    assert [row.replace('[no]', '') for row in rows(text)] == [f'--{flag.name}' for flag in ours]
    assert len(ours) >= 10
    assert '| `train` |' in text
    assert '`fractional`' in text


def test_every_config_key_is_in_the_reference_with_its_default_and_comment():
    text, values = from_code.config(), config_lib.flatten(base.get_config())
    assert set(rows(text)) == {*values, 'stages'}
    for line in text.splitlines():
        if match := re.fullmatch(r'\| `([^`]+)` \| `([^`]+)` \| (.+) \|', line):
            key, value, comment = match.groups()
            assert comment.strip()
            if key in values and 'num_epochs' not in value:
                assert eval(value) == values[key]
    assert '`num_epochs - 13`' in text
    assert 'steps between two lines of metrics.jsonl' in text


def test_what_configs_change_is_what_they_say():
    text = from_code.changes()
    stage2 = text.split('### `stage2`')[1].split('###')[0]
    assert '| `image_size` | `512` |' in stage2
    assert "| `init_from` | `'runs/stage1'` |" in stage2
    assert 'model.width' not in stage2
    assert '### `base`' not in text


def test_files_are_the_codes_own():
    assert rows(from_code.run_files()) == [*RUN_FILES]
    assert rows(from_code.prediction_files()) == [*PREDICTION_FILES]


def test_every_folder_is_in_the_table_with_its_purpose():
    folders = [name.rstrip('/').removesuffix('.py') for name in rows(from_code.folders())]
    assert [f for f in folders if '/' not in f] == [f for layer in LAYERS for f in layer]
    assert '| `models/` | ResNet34, UNet' in from_code.folders()
    assert all(architecture.purpose(name) for name in folders)


def test_every_public_name_is_in_the_reference():
    text = (REPOSITORY / 'docs/reference/python.md').read_text()
    for public in pneumojax.__all__:
        assert f'## `{public}`\n' in text
    assert 'pneumojax.UNet(\n    width=64,\n    stage_sizes=(3, 4, 6, 3),\n' in text


def test_what_is_generated_is_current():
    """In a process of its own, where no fixture has changed a function."""
    result = subprocess.run(
        [sys.executable, '-m', 'docs.from_code', '--check'],
        cwd=REPOSITORY, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ('', '')
    generated = re.findall(
        r'<!-- generated: (.*?) -->', '\n'.join(path.read_text() for path in PAGES)
    )
    assert set(generated) == set(from_code.TABLES)


def test_a_stale_page_is_found_and_rewritten(tmp_path, monkeypatch, capsys):
    pages = tmp_path / 'docs'
    pages.mkdir()
    page, picture = pages / 'files.md', pages / 'architecture.svg'
    page.write_text('a\n<!-- generated: result columns -->\nold\n<!-- end -->\nb\n')
    monkeypatch.setattr(from_code, 'ROOT', tmp_path)
    monkeypatch.setattr(architecture, 'PICTURE', picture)
    assert from_code.main(['--check']) == 1
    assert 'docs/files.md is stale' in capsys.readouterr().out
    assert 'old' in page.read_text()
    assert from_code.main([]) == 0
    assert page.read_text().startswith('a\n<!-- generated: result columns -->\n\n`file`, ')
    assert page.read_text().endswith('<!-- end -->\nb\n')
    assert picture.read_text().startswith('<svg')
    assert from_code.main(['--check']) == 0
    assert from_code.main(['--chek']) == 2


def test_a_generated_part_without_a_maker_is_refused():
    with pytest.raises(KeyError):
        from_code.fill('<!-- generated: nothing -->\n<!-- end -->')


def test_the_picture_leaves_out_only_what_a_longer_path_says():
    graph = {'a': {'b', 'c', 'd'}, 'b': {'c'}, 'c': set(), 'd': {'c'}}
    assert architecture.reduce(graph) == {'a': {'b', 'd'}, 'b': {'c'}, 'c': set(), 'd': {'c'}}


def test_the_picture_shows_every_folder_within_its_frame():
    root = ElementTree.fromstring(architecture.draw())
    _, _, width, height = map(float, root.attrib['viewBox'].split())
    names = {text.text.rstrip('/').removesuffix('.py') for text in root.iter(f'{SVG}text')}
    assert names >= {name for layer in LAYERS for name in layer}
    boxes = [box.attrib for box in root.iter(f'{SVG}rect') if box.attrib['class'] == 'box']
    corners = [[float(b[k]) for k in ('x', 'y', 'width', 'height')] for b in boxes]
    for x, y, w, h in corners:
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
    for (x, y, w, h), (left, top, *_) in itertools.combinations(corners, 2):
        assert abs(x - left) >= w or abs(y - top) >= h, 'two boxes overlap'


def test_docstrings_become_markdown():
    def example(first, *, second=1):
        """Adds.

        More, and
        more.

        Args:
          first: one thing,
            told at length.
          second: another.

        Returns:
          The sum,
          in pixels.
        """

    assert docstrings.describe('pneumojax.example', example) == (
        '## `example`\n\n```py\npneumojax.example(first, *, second=1)\n```\n\nAdds.\n\n'
        'More, and more.\n\n**Args**\n\n- `first`: one thing, told at length.\n'
        '- `second`: another.\n\n**Returns**\n\nThe sum, in pixels.\n'
    )


def test_text_of_the_code_is_not_taken_for_markup():
    table = from_code._table(('key',), [('`<a|b>` in <root>',)])
    assert table.splitlines()[2] == '| `<a\\|b>` in &lt;root> |'


# --- the site ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    for module in ('sphinx', 'furo', 'myst_parser'):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -e '.[docs]'")
    output = tmp_path_factory.mktemp('site')
    result = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-b', 'html', 'docs', output],
        cwd=REPOSITORY, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, '')
    return output


class Requests(HTMLParser):
    """Addresses that a browser fetches when it opens a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ('script', 'img', 'iframe', 'source', 'object', 'embed'):
            self.found += [attrs[key] for key in ('src', 'data') if attrs.get(key)]
        if tag == 'link' and attrs.get('rel') not in (
            'index',
            'search',
            'next',
            'prev',
            'canonical',
        ):
            self.found.append(attrs['href'])


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > 15
    for page in pages:
        for address in Requests(page.read_text()).found:
            assert not re.match(r'[a-z]+:|//', address), (page, address)
            assert (page.parent / address.split('?')[0]).is_file(), (page, address)
    for style in site.rglob('*.css'):
        addresses = re.findall(r'(?:@import|url\()\s*["\']?([^"\')]+)', style.read_text())
        assert not [a for a in addresses if re.match(r'https?:|//', a)], style
    config_page = (site / 'reference' / 'config.html').read_text()
    assert 'optimizer.clip_norm' in config_page
    assert '<td><p>largest global norm of the gradient' in config_page
    index = (site / 'searchindex.js').read_text()
    assert 'pneumothorax' in index


@pytest.mark.slow
def test_a_browser_finds_a_key_from_the_disk(site, browser):
    """Search works, nothing complains, nothing but the site's own files is asked for."""
    for page in ('index', 'explanation/architecture', 'search'):
        address = f'{(site / page).as_uri()}.html' + '?q=clip_norm' * (page == 'search')
        browser.get(address)
    wait_for(lambda: browser.find_elements('css selector', '#search-results li a'))
    found = browser.find_elements('css selector', '#search-results li a')
    assert 'Config keys' in {link.text for link in found}
    assert browser.get_log('browser') == []
    messages = [json.loads(e['message'])['message'] for e in browser.get_log('performance')]
    asked = {
        m['params']['request']['url']
        for m in messages
        if m['method'] == 'Network.requestWillBeSent'
    }
    assert len(asked) > 10
    assert {a for a in asked if not a.startswith((site.as_uri(), 'data:', 'chrome'))} == set()
