"""Writes the parts of the documentation that are made from the code.

    python -m docs.from_code            rewrites them: after a change of flags, keys or imports
    python -m docs.from_code --check    only lists the pages that are stale, and exits with 1

In a page, everything between `<!-- generated: NAME -->` and `<!-- end -->` is what the function of
that name in `TABLES` returns, as Markdown. `docs/architecture.py` draws the picture of the folders,
`docs/evaluation_schema.py` makes the JSON Schema of evaluation.json.
"""

import ast
import importlib
import io
import pathlib
import re
import sys
import tokenize
from typing import Any, NamedTuple

from docs import architecture, docstrings, evaluation_schema

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
_PART = re.compile(r'(<!-- generated: ([\w ]+) -->\n).*?(<!-- end -->)', re.DOTALL)


class Key(NamedTuple):
    """A config key, or a group of keys, as the source of a config sets it."""

    name: str  # dotted
    value: str  # as Python, such as '(3, 4, 6, 3)' or 'num_epochs - 13'; '' for a group
    comment: str  # of its own lines and of the lines of comment right above


def config_keys(source: str) -> list[Key]:
    """Every key that `get_config` in this source sets, in order, groups before their keys.

    Raises:
      ValueError: there is not exactly one function.
    """
    (function,) = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments, alone = {}, set()
    for token in tokens:
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            comments[line] = token.string.lstrip('# ')
            if not token.line[: token.start[1]].strip():
                alone.add(line)

    names, found = {'config': ''}, []

    def dotted(target):
        if isinstance(target, ast.Name):
            return names[target.id]
        return f'{dotted(target.value)}{target.attr}.'

    for node in function.body:
        attributes = [t for t in getattr(node, 'targets', ()) if isinstance(t, ast.Attribute)]
        if not attributes:
            continue
        key = dotted(attributes[0])
        names |= {t.id: key for t in node.targets if isinstance(t, ast.Name)}
        first = node.lineno
        while first - 1 in alone:
            first -= 1
        lines = [comments[i] for i in range(first, node.end_lineno + 1) if i in comments]
        value = ast.unparse(node.value)
        is_group = value == 'ml_collections.ConfigDict()'
        value = re.sub(r"config\.get_ref\('([\w.]+)'\)", r'\1', value)
        value = value.replace('config_dict.ConfigDict()', '{}')
        found.append(Key(key.rstrip('.'), '' if is_group else value, ' '.join(lines)))
    return found


def flags() -> str:
    """Every flag of the program."""
    from absl import flags as absl_flags

    from pneumojax import flags as ours

    rows = []
    for flag in absl_flags.FLAGS.flags_by_module_dict()[ours.__name__]:
        name = f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}'
        values = getattr(flag.parser, 'enum_values', None)
        default = '' if flag.default in (None, []) else str(flag.default).lower()
        text = re.sub(r'^<[\w|]+>: ', '', flag.help)  # absl lists values in front of the text ...
        text = ' '.join(text.split(';\n')[:1])  # ... and behind it that a flag may be repeated
        if values:
            text += f' One of {", ".join(map(_code, values))}.'
        rows.append((_code(name), _code(default), text))
    return _table(('flag', 'default', 'what it does'), rows)


def config() -> str:
    """Every key of `configs/base.py`, a table for each group."""
    pages: dict[str, list] = {'': []}
    intros = {'': ''}
    for key in config_keys((CONFIGS / 'base.py').read_text()):
        group = key.name.rpartition('.')[0]
        if key.value:
            pages[group].append((_code(key.name), _code(key.value), key.comment))
        else:
            pages[key.name], intros[key.name] = [], key.comment
    parts = []
    for group, rows in pages.items():
        heading = f'### `{group}`\n\n{_plain(intros[group])}\n\n' if group else ''
        parts.append(heading + _table(('key', 'default', 'what it does'), rows))
    return '\n'.join(parts)


def changes() -> str:
    """What each of the other configs changes in `base`."""
    from pneumojax.config import flatten

    base = flatten(importlib.import_module('configs.base').get_config())
    parts = []
    for path in sorted(CONFIGS.rglob('*.py')):
        name = path.relative_to(CONFIGS).with_suffix('').as_posix()
        if path.stem == '__init__' or name == 'base':
            continue
        module = importlib.import_module(f'configs.{name.replace("/", ".")}')
        values = flatten(module.get_config())
        rows = [
            (_code(key), _code(repr(value)))
            for key, value in values.items()
            if base.get(key) != value
        ]
        first_line = module.__doc__.splitlines()[0]
        parts.append(f'### `{name}`\n\n{first_line}\n\n{_table(("key", "value"), rows)}')
    return '\n'.join(parts)


def free_keys() -> str:
    """The keys that may change between two commands of one run."""
    from pneumojax.config import FREE_KEYS

    return ', '.join(map(_code, FREE_KEYS)) + '\n'


def run_files() -> str:
    """What a run directory holds."""
    from pneumojax.runs.run import FILES

    return _table(('file', 'content'), [(_code(k), v) for k, v in FILES.items()])


def node_files() -> str:
    """What the folder of a node holds."""
    from pneumojax.serving.serve import FILES

    return _table(('file', 'content'), [(_code(k), v) for k, v in FILES.items()])


def prediction_files() -> str:
    """What predict writes."""
    from pneumojax.prediction.outputs import FILES

    return _table(('file', 'content'), [(_code(k), v) for k, v in FILES.items()])


def external_files() -> str:
    """What evaluate writes about images from elsewhere."""
    from pneumojax.prediction.external import FILES

    return _table(('file', 'content'), [(_code(k), v) for k, v in FILES.items()])


def pretrained_files() -> str:
    """What a folder in Hugging Face's layout holds."""
    from pneumojax.runtimes.pretrained_folder import FILES

    return _table(('file', 'content'), [(_code(k), v) for k, v in FILES.items()])


def result_columns() -> str:
    """The columns of results.csv."""
    from pneumojax.prediction.submission import COLUMNS

    return ', '.join(map(_code, COLUMNS)) + '\n'


def folders() -> str:
    """Every folder of the package: what it is for, and what it imports from."""
    graph = architecture.edges()
    rows = []
    for name, others in graph.items():
        path = f'{name}.py' if name in architecture.TOP else f'{name}/'
        imported = ', '.join(other for other in graph if other in others)
        rows.append((_code(path), architecture.purpose(name), imported))
        inner = architecture.DATA[::-1] if name == 'data' else ()
        rows += [(f'`data/{i}/`', architecture.purpose(f'data/{i}'), '') for i in inner]
    return _table(('folder', 'what it is for', 'imports from'), rows)


def public_names() -> str:
    """What `import pneumojax` gives."""
    import pneumojax

    names = sorted(pneumojax.__all__, key=str.lower)
    return '\n'.join(
        docstrings.describe(f'pneumojax.{name}', getattr(pneumojax, name)) for name in names
    )


TABLES = {
    'folders': folders,
    'public names': public_names,
    'flags': flags,
    'config': config,
    'changes': changes,
    'free keys': free_keys,
    'run files': run_files,
    'prediction files': prediction_files,
    'external files': external_files,
    'node files': node_files,
    'pretrained files': pretrained_files,
    'result columns': result_columns,
}


def fill(text: str) -> str:
    """A page's text with every generated part written anew.

    Raises:
      KeyError: a part has a name that is not in `TABLES`.
    """
    return _PART.sub(lambda match: f'{match[1]}\n{TABLES[match[2]]()}\n{match[3]}', text)


def stale() -> dict[pathlib.Path, str]:
    """The files that are not as the code makes them, each with the text that it should have."""
    wanted = {path: fill(path.read_text()) for path in sorted(ROOT.glob('docs/**/*.md'))}
    wanted[architecture.PICTURE] = architecture.draw()
    wanted[evaluation_schema.FILE] = evaluation_schema.text()
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text
    }


def _plain(text: str) -> str:
    """What Markdown would read as a tag, between pieces of code, as it stands."""
    return '`'.join(
        part.replace('<', '&lt;') if i % 2 == 0 else part for i, part in enumerate(text.split('`'))
    )


def _code(text: Any) -> str:
    return f'`{text}`' if text != '' else ''


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ('---',) * len(head), *rows]
    cells = ([_plain(cell).replace('|', '\\|') for cell in row] for row in lines)
    return ''.join(f'| {" | ".join(row)} |\n' for row in cells)


def main(arguments: list[str]) -> int:
    """Rewrites the stale files, or with --check only lists them; the exit status."""
    if arguments not in ([], ['--check']):
        print('usage: python -m docs.from_code [--check]', file=sys.stderr)
        return 2
    found = stale()
    for path, text in found.items():
        if arguments:
            print(f'{path.relative_to(ROOT)} is stale: run python -m docs.from_code')
        else:
            path.write_text(text)
            print(f'wrote {path.relative_to(ROOT)}')
    return 1 if arguments and found else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
