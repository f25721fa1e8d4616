"""What a compiled program costs, from its text (optimized HLO): pure functions of that text.

XLA's own `cost_analysis` counts the body of a loop once, counts nothing for GPUs, and takes on-chip
memory for memory. Here an instruction of a loop counts as often as it runs, of the branches of a
condition the one that moves most bytes, and only memory outside of the chip, with the padding of
its tiles. An instruction reads each operand and writes its result; of an operand that it only
slices or gathers from, what it takes.
"""

import collections
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from benchmarks.hlo import FREE, Array, Instruction, Module, callees

PARTS = ('convolutions', 'norms', 'augmentation', 'copies', 'collectives', 'other')

_COLLECTIVES = (
    'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute',
    'collective-broadcast',
)  # fmt: skip
_COPIES = {
    'copy', 'copy-start', 'slice', 'slice-start', 'transpose', 'reshape', 'concatenate', 'pad',
    'gather', 'scatter', 'dynamic-slice', 'dynamic-update-slice', 'broadcast', 'reverse', 'convert',
    'convert_element_type', 'broadcast_in_dim', 'squeeze', 'expand_dims', 'dynamic_slice', 'rev',
    'dynamic_update_slice',
}  # fmt: skip
_FREE_CALLS = ('"AllocateBuffer"', '"ConcatBitcast"')
_TAKES = {'slice', 'dynamic-slice', 'gather'}  # of their first operand no more than their result

Names = Mapping[str, Instruction]  # of one computation
Shape = tuple[int, ...]


class Cost(NamedTuple):
    """What one instruction costs, each time it runs."""

    part: str  # of PARTS
    flops: float  # of convolutions and matrix products
    bytes: float
    cycles: float  # the compiler's estimate; 0 where it gives none
    gathered: float  # values, or rows of values, read one by one
    times: int  # how often it runs
    instruction: Instruction


def costs(module: Module) -> list[Cost]:
    """The cost of every instruction that does something, loops unrolled in `times`."""
    return list(_costs_of(module, module.entry, 1))


def by_part(found: list[Cost], value: Callable[[Cost], float]) -> dict[str, float]:
    """Sums over the parts of a program.

    Args:
      found: as `costs` gives them.
      value: of one instruction each time it runs.
    """
    sums = dict.fromkeys(PARTS, 0.0)
    for cost in found:
        sums[cost.part] += cost.times * value(cost)
    return sums


def total(found: list[Cost], value: Callable[[Cost], float]) -> float:
    """The sum over all instructions."""
    return sum(by_part(found, value).values())


def collectives(found: list[Cost]) -> dict[str, int]:
    """How often each kind of collective runs."""
    counts: collections.Counter[str] = collections.Counter()
    for cost in found:
        if kind := _collective(cost.instruction.opcode):
            counts[kind] += cost.times
    return dict(counts)


def _costs_of(module: Module, name: str, times: int) -> Iterator[Cost]:
    computation = module.computations.get(name, [])
    known = {instruction.name: instruction for instruction in computation}
    for instruction in computation:
        opcode = instruction.opcode
        if opcode == 'while':
            trips = _trips(module, instruction)
            yield from _costs_of(module, callees(instruction, 'body')[0], times * trips)
        elif opcode == 'conditional':
            branches = [list(_costs_of(module, b, times)) for b in _branches(instruction)]
            yield from max(branches, key=lambda b: total(b, lambda c: c.bytes), default=[])
        elif opcode == 'call':
            yield from _costs_of(module, callees(instruction, 'to_apply')[0], times)
        elif opcode not in FREE and not opcode.endswith(('-done', '-update')):
            yield _cost(module, instruction, known, times)


def _cost(module: Module, instruction: Instruction, known: Names, times: int) -> Cost:
    inner = _inner(module, instruction, known)
    flops = sum(_product_flops(i, names) for i, names in inner)
    gathered = sum(_num_gathered(i) for i, _ in inner)
    cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
    if inner[0][0] is instruction:
        moved = _plain_bytes(instruction, known)
    else:
        moved = _fusion_bytes(module, instruction, known)
    return Cost(
        _part(instruction, flops), flops, moved, float(cycles[1]) if cycles else 0.0, gathered,
        times, instruction,
    )  # fmt: skip


def _inner(
    module: Module, instruction: Instruction, known: Names
) -> list[tuple[Instruction, Names]]:
    """The instructions that one stands for: those of a fusion, nested ones too; else itself."""
    called = callees(instruction, 'calls')
    if instruction.opcode != 'fusion' or not called:
        return [(instruction, known)]
    computation = module.computations[called[0]]
    names = {i.name: i for i in computation}
    return [pair for i in computation for pair in _inner(module, i, names)]


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r'branch_computations=\{([^}]*)\}', instruction.attributes)
    if listed:
        return re.findall(r'%?([\w.\-]+)', listed[1])
    return re.findall(r'(?:true|false)_computation=%?([\w.\-]+)', instruction.attributes)


def _trips(module: Module, loop: Instruction) -> int:
    """How often a loop runs: as the compiler says, or up to the constant of its condition."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations.get(callees(loop, 'condition')[0], [])
    limits = [
        int(found[1])
        for instruction in condition
        if instruction.opcode == 'constant'
        and (found := re.match(r'\((\d+)\)', instruction.attributes))
    ]
    counts_up = any('direction=LT' in instruction.attributes for instruction in condition)
    return limits[0] if len(limits) == 1 and counts_up else 1


def _sources(name: str, known: Names) -> tuple[Array, ...]:
    """The arrays that an operand names."""
    return known[name].results if name in known else ()


def _plain_bytes(instruction: Instruction, known: Names) -> float:
    opcode, results = instruction.opcode, instruction.results
    if any(target in instruction.attributes for target in _FREE_CALLS):
        return 0.0
    read = [sum(a.bytes for a in _sources(name, known)) for name in instruction.operands]
    if opcode == 'copy-start':  # its results: the copy, the original, a handle
        results = results[:1]
    elif opcode.endswith('-start') and not opcode.startswith('all-reduce'):
        results = results[1:2]  # the original, the result, a handle
    written = sum(a.bytes for a in results)
    if opcode.removesuffix('-start') in _TAKES:
        taken = sum(math.prod(a.shape) * a.itemsize for a in results)
        return min(read[0], taken) + sum(read[1:]) + written
    if opcode == 'dynamic-update-slice':  # in place
        return 2 * read[1]
    if opcode == 'scatter':  # in place, at the indices
        return sum(read[1:]) + read[-1]
    return sum(read) + written


def _fusion_bytes(module: Module, instruction: Instruction, known: Names) -> float:
    computation = module.computations[callees(instruction, 'calls')[0]]
    parameters = {
        int(found[1]): i
        for i in computation
        if i.opcode == 'parameter' and (found := re.match(r'\((\d+)\)', i.attributes))
    }
    names = {i.name: i for i in computation}
    root = next(i for i in computation if i.root)
    updated = _updated_in_place(root, names)
    moved = 0.0
    for position, operand in enumerate(instruction.operands):
        arrays = _sources(operand, known)
        size = sum(a.bytes for a in arrays)
        parameter = parameters.get(position)
        if parameter is not None and updated and updated[0] == parameter.name:
            continue
        users = _users(parameter.name, computation) if parameter else []
        if users and all(u.opcode in _TAKES and u.operands[0] in a for u, a in users):
            taken = sum(math.prod(u.results[0].shape) * u.results[0].itemsize for u, _ in users)
            size = min(size, taken)
        moved += size
    if updated:
        return moved + 2 * updated[1]
    return moved + sum(a.bytes for a in instruction.results)


def _users(name: str, computation: list[Instruction]) -> list[tuple[Instruction, frozenset[str]]]:
    """Instructions that use a value, through bitcasts; each with the value's names."""
    names = {name}
    for instruction in computation:
        if instruction.opcode == 'bitcast' and names.intersection(instruction.operands):
            names.add(instruction.name)
    return [
        (i, frozenset(names))
        for i in computation
        if i.opcode != 'bitcast' and names.intersection(i.operands)
    ]


def _updated_in_place(root: Instruction, names: Names) -> tuple[str, float] | None:
    """The parameter that a fusion writes a slice of, and the slice's bytes."""
    while root.opcode == 'bitcast' and root.operands:
        root = names[root.operands[0]]
    if root.opcode != 'dynamic-update-slice':
        return None
    target = names[root.operands[0]]
    while target.opcode == 'bitcast' and target.operands:
        target = names[target.operands[0]]
    update = names[root.operands[1]].results[0]
    return target.name, math.prod(update.shape) * update.itemsize


def _num_gathered(instruction: Instruction) -> float:
    if instruction.opcode != 'gather' or not instruction.results:
        return 0.0
    slices = re.search(r'slice_sizes=\{([\d,]*)\}', instruction.attributes)
    row = math.prod(int(n) for n in slices[1].split(',')) if slices else 1
    return math.prod(instruction.results[0].shape) / row


def _product_flops(instruction: Instruction, names: Names) -> float:
    """Of a convolution or a matrix product: 2 for each multiplication and addition."""
    opcode, attributes = instruction.opcode, instruction.attributes
    operands = [_sources(name, names) for name in instruction.operands[:2]]
    if opcode == 'convolution':
        return _convolution_flops(operands[0][0].shape, operands[1][0].shape,
                                  instruction.results[0].shape, attributes)  # fmt: skip
    contracted = re.search(
        r'lhs_contracting_dim(?:s=\{|ensions":\[)([^\]}]*)', attributes
    )  # of dot, and of cuBLAS
    if contracted and len(operands) == 2:
        sides = [operands[0][0].shape[int(d)] for d in re.findall(r'\d+', contracted[1])]
        return 2.0 * math.prod(instruction.results[0].shape) * math.prod(sides)
    cudnn = re.search(r'custom_call_target="__cudnn\$conv(\w+)"', attributes)
    if not cudnn:
        return 0.0
    # Gradients too have the labels and the window of the forward convolution.
    shapes = [operands[0][0].shape, operands[1][0].shape, instruction.results[0].shape]
    order = {'BackwardInput': (0, 1), 'BackwardFilter': (1, 2)}  # its output, its kernel
    output, kernel = (shapes[i] for i in order.get(cudnn[1], (2, 1)))
    labels = re.search(r'dim_labels=\w+_(\w+)->', attributes)[1]
    return 2.0 * math.prod(output) * math.prod(kernel) / kernel[labels.index('o')]


def _convolution_flops(lhs: Shape, rhs: Shape, out: Shape, attributes: str) -> float:
    """Products with padding count, since they are computed; those with holes of dilation do not."""
    _, of_rhs, of_out = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', attributes).groups()
    window = re.search(r'window=\{([^}]*)\}', attributes)
    fields = dict(field.split('=', 1) for field in window[1].split()) if window else {}

    def field(name: str, axis: int, default: str) -> str:
        return fields[name].split('x')[axis] if name in fields else default

    flops = 2.0 * out[of_out.index('b')] * out[of_out.index('f')] * rhs[of_rhs.index('i')]
    for axis in range(len(lhs) - 2):
        kernel, outputs = rhs[of_rhs.index(str(axis))], out[of_out.index(str(axis))]
        stride, holes = int(field('stride', axis, '1')), int(field('lhs_dilate', axis, '1'))
        dilation, before = (
            int(field('rhs_dilate', axis, '1')), int(field('pad', axis, '0_0').split('_')[0])
        )  # fmt: skip
        if holes == 1:
            flops *= kernel * outputs
        else:
            flops *= sum(
                (i * stride + j * dilation - before) % holes == 0
                for i in range(outputs)
                for j in range(kernel)
            )
    return flops


def _collective(opcode: str) -> str:
    opcode = opcode.removesuffix('-start')
    return opcode if opcode in _COLLECTIVES else ''


def _part(instruction: Instruction, flops: float) -> str:
    name = instruction.op_name
    if _collective(instruction.opcode):
        return 'collectives'
    if re.search(r'\baugment', name):
        return 'augmentation'
    if flops:
        return 'convolutions'
    if re.search(r'/(bn\d|\w+_bn)(/|$)', name):
        return 'norms'
    if instruction.opcode in _COPIES or name.rpartition('/')[2] in _COPIES:
        return 'copies'
    return 'other'
