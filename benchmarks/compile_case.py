"""One program of `compile`, in a process of its own: prints a JSON object as its last line."""

import contextlib
import importlib
import json
import math
import resource
import sys
import time

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import chips, compile_costs, hlo, programs
from pneumojax.runs import layout
from pneumojax.system.devices import AXIS


def make_config(case):
    """The configuration that a case names (of stages the last), at its size, type and batch."""
    config = importlib.import_module(f'configs.{case["config"]}').get_config()
    config = layout.last_stage(config)
    config.image_size, config.model.dtype = case['size'], case['dtype']
    config.batch_size = case['batch'] * case['devices']
    if case['width']:
        config.model.width = case['width']
    return config


def lower(program: programs.Program, devices: list):
    """The program for these devices, ready to compile: `jit` on one, `pmap` on several."""
    if len(devices) > 1:
        count = len(devices)
        copies = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), program.replicated
        )
        shares = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, x.shape[0] // count, *x.shape[1:]), x.dtype),
            program.batch,
        )
        mapped = jax.pmap(program.function, AXIS, devices=devices, donate_argnums=program.donated)
        return mapped.lower(*copies, shares)
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec())
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        (*program.replicated, program.batch),
    )
    return jax.jit(program.function, donate_argnums=program.donated).lower(*arguments)


def run(case) -> dict:
    """Compiles and counts."""
    chip = chips.CHIPS[case['chip']]
    config, count = make_config(case), case['devices']
    program = programs.make_program(case['program'], config, AXIS if count > 1 else None)
    devices = chips.devices(chip, count)
    lowered = lower(program, devices)
    wall, processor = time.perf_counter(), _cpu_seconds()
    compiled = lowered.compile()
    wall, processor = time.perf_counter() - wall, _cpu_seconds() - processor
    text = compiled.as_text()
    if case['keep']:
        with open(case['keep'], 'w') as file:
            file.write(text)
    reported = None
    with contextlib.suppress(Exception):  # not implemented for every chip
        reported = compiled.cost_analysis()
    fixed = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(program.replicated))
    return {
        'compile s': wall,
        'CPU s': processor,
        **memory(chip, compiled.memory_analysis(), fixed, case['batch']),
        **costs(chip, text, case['dtype']),
        'analytic FLOP': programs.product_flops(case['program'], config) / count,
        "bytes, XLA's count": reported.get('bytes accessed') if reported else None,
    }


def memory(chip: chips.Chip, stats, fixed: int, batch_size: int) -> dict:
    """Peak memory of a device, and the largest batch for which it would do.

    The peak is taken to be what does not depend on the batch (weights, their gradients' state, the
    code) and a part for each image.

    Args:
      chip: whose memory it is.
      stats: as `Compiled.memory_analysis` gives them.
      fixed: bytes of the arguments that do not depend on the batch.
      batch_size: of the program.
    """
    peak = max(
        getattr(stats, 'peak_memory_in_bytes', 0),
        stats.argument_size_in_bytes + stats.temp_size_in_bytes + stats.output_size_in_bytes
        - stats.alias_size_in_bytes,
    )  # fmt: skip
    fixed += stats.generated_code_size_in_bytes
    an_image = max(1.0, (peak - fixed) / batch_size)
    largest = int((chip.memory - fixed) // an_image) if chip.memory else None
    return {'peak bytes': peak, 'bytes an image': an_image, 'largest batch': largest}


def costs(chip: chips.Chip, text: str, dtype: str) -> dict:
    """Work, memory traffic, the roofline's time and what the compiler estimates, and their parts.

    The roofline's time of an instruction is the longer of two: its products at the chip's peak, its
    bytes at the chip's bandwidth. A program is one instruction after another.
    """
    found = compile_costs.costs(hlo.parse(text))
    peak, bandwidth = chip.peak(dtype), chip.bandwidth

    def seconds(cost) -> float:
        return max(cost.flops / peak, cost.bytes / bandwidth) if peak and bandwidth else 0.0

    values = {
        'FLOP': lambda cost: cost.flops,
        'bytes': lambda cost: cost.bytes,
        'roofline s': seconds,
        'cycles': lambda cost: cost.cycles,
        'gathered': lambda cost: cost.gathered,
    }
    return {
        **{name: compile_costs.total(found, value) for name, value in values.items()},
        'parts': {name: compile_costs.by_part(found, value) for name, value in values.items()},
        'collectives': compile_costs.collectives(found),
    }


def _cpu_seconds() -> float:
    """Of this process and of those it has waited for, such as assemblers."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == '__main__':
    print(json.dumps(run(json.loads(sys.argv[1]))))
