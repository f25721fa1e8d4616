"""Reads the text of a compiled program (optimized HLO): computations, instructions, arrays."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

FREE = {  # they name memory, or start what another instruction finishes
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'iota',
    'partition-id', 'replica-id', 'opt-barrier', 'domain',
}  # fmt: skip
_BYTES = {'pred': 1, 'bf16': 2, 'f16': 2, 'c64': 8, 'c128': 16, 'token': 0}

_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = (.*)')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([^\]]*)\](\{[^}]*\})?')


class Array(NamedTuple):
    """An array in memory."""

    shape: tuple[int, ...]
    itemsize: float
    bytes: float  # in memory outside of the chip, with padding; 0 for an array on the chip


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str  # everything after the operands
    root: bool

    @property
    def op_name(self) -> str:
        """Where it comes from: JAX's name stack."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ''


class Module(NamedTuple):
    """A program: computations by name, each a list of instructions in order."""

    computations: Mapping[str, list[Instruction]]
    entry: str


def parse(text: str) -> Module:
    """Reads the text of a compiled program."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = '', None
    for line in text.splitlines():
        if line.endswith('{') and not line.startswith(' ') and '->' in line:
            name = line.removeprefix('ENTRY ').lstrip('%').split(' ', 1)[0].split('(', 1)[0]
            current = computations[name] = []
            if line.startswith('ENTRY '):
                entry = name
        elif line.startswith('}'):
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_instruction(found[2], found[3], bool(found[1])))
    return Module(computations, entry)


def callees(instruction: Instruction, kind: str) -> list[str]:
    """The computations that an instruction names as `kind`, such as 'calls' or 'body'."""
    return re.findall(rf'\b{kind}=%?([\w.\-]+)', instruction.attributes)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    result, rest = _split_type(rest)
    opcode, _, rest = rest.partition('(')
    inside, attributes = _split_parentheses(rest)
    operands = tuple(re.findall(r'%([\w.\-]+)', inside)) if opcode not in FREE else ()
    if opcode in ('get-tuple-element', 'bitcast', 'opt-barrier'):
        operands = tuple(re.findall(r'%([\w.\-]+)', inside))
    elif opcode in ('parameter', 'constant'):
        attributes = f'({inside}){attributes}'
    return Instruction(name, opcode.strip(), _arrays(result), operands, attributes, root)


def _split_type(text: str) -> tuple[str, str]:
    """Splits 'f32[2]{0} add(...)' or '(f32[2], u8[0]) fusion(...)' after the type."""
    if text.startswith('('):
        inside, rest = _split_parentheses(text[1:])
        return inside, rest.lstrip()
    result, _, rest = text.partition(' ')
    return result, rest


def _split_parentheses(text: str) -> tuple[str, str]:
    """Splits at the parenthesis that closes the one before the text."""
    depth = 1
    for found in re.finditer(r'[()]', text):
        depth += 1 if found[0] == '(' else -1
        if not depth:
            return text[: found.start()], text[found.end() :]
    return text, ''


def _arrays(text: str) -> tuple[Array, ...]:
    return tuple(_array(*found.groups()) for found in _ARRAY.finditer(text))


def _array(dtype: str, dimensions: str, layout: str | None) -> Array:
    shape = tuple(int(d.strip('<= ')) for d in dimensions.split(',') if d.strip())
    itemsize = _BYTES.get(dtype)
    if itemsize is None:  # f32, s8, u4, f8e4m3fn
        itemsize = int(re.match(r'[a-z]+(\d+)', dtype)[1]) / 8
    if 'S(' in (layout or '') and not re.search(r'S\(0\)', layout):
        return Array(shape, itemsize, 0.0)
    return Array(shape, itemsize, itemsize * _padded_size(shape, layout or ''))


def _padded_size(shape: tuple[int, ...], layout: str) -> int:
    """Elements that an array takes: a TPU's tiles are 8 x 128 values, mostly."""
    order = re.match(r'\{([\d,]*)', layout)
    minor_to_major = [int(d) for d in order[1].split(',') if d] if order else []
    tile = re.search(r'T\(([\d,]+)\)', layout)
    sides = [shape[d] for d in minor_to_major] or list(shape[::-1])
    for i, length in enumerate(reversed(tile[1].split(',')) if tile else ()):
        if i < len(sides):
            sides[i] = -(-sides[i] // int(length)) * int(length)
    return math.prod(sides)
