"""Docstrings in Google's style, as Markdown."""

import inspect
import re
import types
from typing import Any

_SECTION = re.compile(r'^(Args|Attributes|Returns|Raises|Example|Source):$')
_ENTRY = re.compile(r'^(\*{0,2}[\w.]+): (.*)', re.DOTALL)


def describe(name: str, value: Any, heading: str = '##') -> str:
    """A name with its signature and its docstring, as Markdown.

    A class is followed by its `__call__`, a module by its functions.

    Args:
      name: as users write it, such as 'pneumojax.dice'.
      value: a function, class or module; for anything else only the name and the value are given.
      heading: in front of the name.
    """
    short = name.removeprefix('pneumojax.')
    if isinstance(value, types.ModuleType):
        functions = [
            f
            for key, f in vars(value).items()
            if inspect.isfunction(f) and f.__module__ == value.__name__ and key[0] != '_'
        ]
        parts = [f'{heading} `{short}`\n\n{markdown(value.__doc__)}']
        parts += [describe(f'{name}.{f.__name__}', f, f'{heading}#') for f in functions]
        return '\n'.join(parts)
    if not callable(value):
        return f'{heading} `{short}`\n\n`{value!r}`\n'
    text = (
        f'{heading} `{short}`\n\n```py\n{_signature(name, value)}\n```\n\n{markdown(value.__doc__)}'
    )
    if inspect.isclass(value):
        call = value.__call__
        text += f'\n```py\n{_signature(short.lower(), call)}\n```\n\n{markdown(call.__doc__)}'
    return text


def markdown(docstring: str | None) -> str:
    """A docstring as paragraphs, and a list for each section such as Args."""
    parts: list[str] = []
    for block in inspect.cleandoc(docstring or '').split('\n\n'):
        title, _, body = block.partition('\n')
        if not (match := _SECTION.match(title)):
            parts.append(' '.join(block.split('\n')))
            continue
        items = re.split(r'\n(?! )', inspect.cleandoc(body))  # a deeper line goes on with the item
        lines = [' '.join(item.split()) for item in items]
        if all(_ENTRY.match(line) for line in lines):
            lines = ['- ' + _ENTRY.sub(r'`\1`: \2', line) for line in lines]
        else:
            lines = [' '.join(lines)]
        parts.append('\n'.join([f'**{match[1]}**', '', *lines]))
    return '\n\n'.join(parts) + '\n'


def _called(name: str, value: Any) -> str:
    return f'```py\n{_signature(name, value)}\n```\n\n{markdown(value.__doc__)}'


def _signature(name: str, value: Any) -> str:
    """How it is called. Types are left out: the docstring gives shapes, units and ranges."""
    parts: list[str] = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name in ('self', 'parent', 'name'):  # the last two are flax's own
            continue
        if parameter.kind == parameter.KEYWORD_ONLY and '*' not in parts:
            parts.append('*')
        text = str(parameter.replace(annotation=parameter.empty))
        parts.append(re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r'\1', text))
    short = f'{name}({", ".join(parts)})'
    return (
        short
        if len(short) <= 80
        else '\n    '.join([f'{name}(', *(f'{part},' for part in parts)]) + '\n)'
    )
