"""Every program can be lowered for TPUs and NVIDIA's GPUs, which needs neither.

It shows operations that a platform lacks, values of 64 bits, and calls back to the host.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import programs
from configs import base
from configs.recipes import amirassov, best, sneddy
from pneumojax.runs import layout

PLATFORMS = ('cuda', 'tpu')
# The recipes that differ from base.py in more than their numbers; of stages the last.
CONFIGS = (amirassov, best, sneddy)


def tiny(config):
    """The same with a narrow network at 32 px."""
    config = config.copy_and_resolve_references()
    config.image_size, config.batch_size = 32, 4
    config.model.width, config.model.stage_sizes = 4, (1, 1, 1, 1)
    config.augment.window = 16 if config.augment.window else 0
    return config


def lowered(program, platforms=PLATFORMS):
    """Its text for these platforms."""
    arguments = (*program.replicated, program.batch)
    return jax.jit(program.function).trace(*arguments).lower(lowering_platforms=platforms).as_text()


def check(text):
    assert not re.search(r'\bf64\b|[x<]f64>', text)
    targets = re.findall(r'custom_call @([\w.$]+)', text)
    assert not [target for target in targets if 'callback' in target]
    assert not re.search(r'stablehlo\.(infeed|outfeed|send|recv)\b', text)


@pytest.mark.parametrize('module', CONFIGS, ids=lambda module: module.__name__)
def test_training(module):
    *_, (config, _) = layout.runs(module.get_config(), pathlib.Path('runs'))
    check(lowered(programs.make_program('train', tiny(config))))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', sorted({*programs.PROGRAMS} - {'network'}))  # part of 'train'
def test_every_program_in_both_types(name, dtype):
    config = tiny(base.get_config())
    config.model.dtype = dtype
    config.augment.update({'vertical_flip': 0.5, 'border': 'reflect'})
    config.model.classification_head = 'gate'
    config.loss.classification = 0.1
    config.tta.flips = ('horizontal', 'vertical')
    text = lowered(programs.make_program(name, config))
    check(text)
    assert ('bf16' in text) == (dtype == 'bfloat16' and name not in ('augment', 'look_up'))


@pytest.mark.parametrize(
    'broken',
    [
        lambda x: jax.pure_callback(np.sin, x, x),
        lambda x: (x.astype(jnp.float64) + 1).astype(jnp.float32),
    ],
)
def test_the_check_sees_what_it_looks_for(broken):
    with jax.enable_x64(True):
        program = programs.Program(broken, (), jax.ShapeDtypeStruct((4,), np.float32))
        text = lowered(program, ('cpu',))
    with pytest.raises(AssertionError):
        check(text)
