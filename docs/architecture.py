"""Draws the package's folders and the imports between them: docs/explanation/architecture.svg.

The layers are those that `tests/test_architecture.py` enforces; the arrows are read from the code.
An arrow is left out where a longer path implies it: `main -> experiments -> training` implies
`main -> training`. `python -m docs.from_code` writes the file.
"""

import ast
import itertools
import pathlib
import textwrap

from tests.test_architecture import (
    DATA,
    FILES,
    LAYERS,
    MODULES,
    PACKAGE,
    folder,
    imports,
    module_name,
    module_of,
)

PICTURE = pathlib.Path(__file__).parent / 'explanation' / 'architecture.svg'
# The folders have a docstring of their own; these are files at the top of the package.
TOP = {
    'main': 'The command line: flags, and one handler for each mode.',
    'config': 'Reading and checking configs; defaults are in configs/base.py.',
    'errors': 'UsageError: a mistake that the user can fix.',
}
WIDTH, HEIGHT = 800, 98  # of the picture, and of one layer, px
BOX = (184, 64)  # px

Edges = dict[str, set[str]]  # folder -> the folders that it imports from


def purpose(name: str) -> str:
    """What a folder is for: the first line of its docstring."""
    if name in TOP:
        return TOP[name]
    docstring = ast.get_docstring(ast.parse((PACKAGE / name / '__init__.py').read_text()))
    return (docstring or '').partition('\n')[0]


def edges() -> Edges:
    """Every folder of the layers with the folders that its modules import from."""
    found: Edges = {name: set() for layer in LAYERS for name in layer}
    for path in MODULES:
        module = module_name(path)
        if module == 'pneumojax.__init__':  # the public face
            continue
        for name in imports(path.read_text(), module):
            other = module_of(name)
            if other and other != 'pneumojax.__init__' and folder(other) != folder(module):
                found[folder(module)].add(folder(other))
    return found


def reduce(graph: Edges) -> Edges:
    """The fewest arrows between which every path of the graph is still there."""

    def below(name: str) -> set[str]:
        return graph[name].union(*(below(other) for other in graph[name]))

    return {
        name: {o for o in others if not any(o in below(via) for via in others - {o})}
        for name, others in graph.items()
    }


def draw() -> str:
    """The picture, as SVG."""
    arrows = reduce(edges())
    places = _place(arrows)
    chains = [_chain(name, other) for name in arrows for other in sorted(arrows[name])]
    starts = _spread([(chain[0], chain[1]) for chain in chains], places)
    ends = _spread([(chain[-1], chain[-2]) for chain in chains], places)
    parts = [_HEAD.format(width=WIDTH, height=HEIGHT * len(LAYERS) + 8)]
    for chain, start, end in zip(chains, starts, ends, strict=True):
        points = [places[node] for node in chain]
        points[0], points[-1] = (start, points[0][1]), (end, points[-1][1])
        parts.append(f'<path class="arrow" d="{_path(points)}"/>')
    return '\n'.join([*parts, *(_box(name, *places[name]) for name in arrows), '</svg>\n'])


def _level(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def _chain(name: str, other: str) -> list[str]:
    """The nodes of an arrow: its ends, and a point in every layer that it passes."""
    between = range(_level(name) + 1, _level(other))
    return [name, *(f'{name} {other} {level}' for level in between), other]


def _place(arrows: Edges) -> dict[str, tuple[float, float]]:
    """The middle of every box and every point, px.

    Sugiyama's way to draw layers: each row is sorted by the mean place of its neighbours in the row
    above, then below, many times over; then nodes move towards their neighbours.
    """
    rows: list[list[str]] = [list(layer) for layer in LAYERS]
    neighbours: dict[str, list[str]] = {name: [] for name in arrows}
    for name, others in arrows.items():
        for other in sorted(others):
            chain = _chain(name, other)
            for level, point in enumerate(chain[1:-1], _level(name) + 1):
                rows[level].append(point)
            for a, b in itertools.pairwise(chain):
                neighbours.setdefault(a, []).append(b)
                neighbours.setdefault(b, []).append(a)
    x = {node: WIDTH * (i + 1) / (len(row) + 1) for row in rows for i, node in enumerate(row)}
    level = {node: i for i, row in enumerate(rows) for node in row}
    for turn in range(80):
        for i in range(len(rows)) if turn % 2 else reversed(range(len(rows))):
            for node in rows[i]:
                near = [x[n] for n in neighbours[node] if turn > 40 or (level[n] < i) == turn % 2]
                x[node] = sum(near) / len(near) if near else x[node]
            if turn < 40:
                rows[i].sort(key=lambda node: x[node])
            _separate(rows[i], x)
    shift = (WIDTH - min(x.values()) - max(x.values())) / 2
    return {node: (x[node] + shift, HEIGHT * (level[node] + 0.5) + 4) for node in level}


def _separate(row: list[str], x: dict[str, float]) -> None:
    """Moves the nodes of a row apart and into the picture, in the order of the row."""
    half = [BOX[0] / 2 + 10 if node.isalpha() else 14 for node in row]
    edge = 4.0
    for node, width in zip(row, half, strict=True):
        x[node] = max(x[node], edge + width)
        edge = x[node] + width
    edge = WIDTH - 4.0
    for node, width in zip(reversed(row), reversed(half), strict=True):
        x[node] = min(x[node], edge - width)
        edge = x[node] - width


def _spread(ends: list[tuple[str, str]], places: dict[str, tuple[float, float]]) -> list[float]:
    """Where each arrow meets its box: side by side, in the order in which they come."""
    result = []
    for box, near in ends:
        others = sorted(places[other][0] for name, other in ends if name == box)
        order = others.index(places[near][0])
        result.append(places[box][0] + 22 * (order - (len(others) - 1) / 2))
    return result


def _path(points: list[tuple[float, float]]) -> str:
    """From the bottom of the first box to the top of the last one, past the boxes between."""
    half = BOX[1] / 2
    (x, y), *rest = points
    text = f'M{x:.0f} {y + half:.0f}'
    for next_x, next_y in rest:
        top, bend = next_y - half, (next_y - y - BOX[1]) * 0.6
        text += (
            f'C{x:.0f} {y + half + bend:.0f} {next_x:.0f} {top - bend:.0f} {next_x:.0f} {top:.0f}'
        )
        text += f'V{next_y + half:.0f}' if (next_x, next_y) != rest[-1] else ''
        x, y = next_x, next_y
    return text


def _box(name: str, x: float, y: float) -> str:
    left, top = x - BOX[0] / 2, y - BOX[1] / 2
    title = f'{name}/' if name not in FILES.values() else f'{name}.py'
    lines = textwrap.wrap(purpose(name) if name != 'data' else ' · '.join(DATA[::-1]), 29)
    size = f'width="{BOX[0]}" height="{BOX[1]}"'
    parts = [
        f'<rect class="box" x="{left:.0f}" y="{top:.0f}" {size} rx="6"/>',
        f'<text class="name" x="{x:.0f}" y="{top + 18:.0f}">{title}</text>',
    ]
    for i, line in enumerate(lines):
        parts.append(f'<text class="line" x="{x:.0f}" y="{top + 33 + 13 * i:.0f}">{line}</text>')
    return '\n'.join(parts)


_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
font-family="system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif" text-anchor="middle">
<title>The folders of the package; arrows are imports, and point down</title>
<style>
.paper {{ fill: #ffffff }} .box {{ fill: #eef3f9; stroke: #5b7fa8 }}
.name {{ fill: #14202e; font-size: 15px; font-weight: 600 }}
.line {{ fill: #3a4757; font-size: 11px }}
.arrow {{ fill: none; stroke: #6b7785; stroke-width: 1.4; marker-end: url(#head) }}
.head {{ fill: #6b7785 }}
@media (prefers-color-scheme: dark) {{
.paper {{ fill: #14181d }} .box {{ fill: #22303f; stroke: #6f96c2 }}
.name {{ fill: #f0f4f8 }} .line {{ fill: #b9c4d0 }}
.arrow {{ stroke: #8f9bab }} .head {{ fill: #8f9bab }}
}}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6" \
orient="auto"><path class="head" d="M0 0 10 5 0 10z"/></marker></defs>
<rect class="paper" width="{width}" height="{height}" rx="10"/>"""
