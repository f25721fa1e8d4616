"""Tables and pictures of the documentation are made from the code, and are current."""

import itertools
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from absl import flags as absl_flags

import pneumojax
from configs import base
from docs import architecture, docstrings, from_code
from pneumojax import config as config_lib
from pneumojax import flags
from pneumojax.prediction.outputs import FILES as PREDICTION_FILES
from pneumojax.runs.run import FILES as RUN_FILES
from tests.test_architecture import LAYERS
from tests.test_docs import PAGES, REPOSITORY

SVG = '{http://www.w3.org/2000/svg}'


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
