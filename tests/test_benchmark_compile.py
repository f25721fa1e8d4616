"""The benchmark `compile`: what it reads from compiled programs, its tables, and two real chips."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks import chips, compile, compile_case, compile_costs, hlo, programs, run
from configs import base
from pneumojax.errors import UsageError
from pneumojax.models import build

# A loop of four turns around a gather and a product, a copy to on-chip memory, a condition, an
# update in place, and a sum over devices, as libtpu and the CUDA plugin write them.
TEXT = """HloModule jit_f, is_scheduled=true

%fused (param_0: f32[8,100], param_1: s32[4,1]) -> f32[4,100] {
  %param_0 = f32[8,100]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[4,1]{1,0} parameter(1)
  ROOT %gather.1 = f32[4,100]{1,0} gather(%param_0, %param_1), offset_dims={1}, slice_sizes={1,100}
}

%body (arg: (s32[], f32[8,100], s32[4,1], f32[4,100])) -> (s32[], f32[8,100]) {
  %arg = (s32[], f32[8,100]{1,0:T(8,128)}, s32[4,1]{1,0}, f32[4,100]{1,0}) parameter(0)
  %rows = f32[8,100]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %which = s32[4,1]{1,0} get-tuple-element(%arg), index=2
  %fusion.1 = f32[4,100]{1,0} fusion(%rows, /*index=1*/%which), kind=kCustom, calls=%fused, \
metadata={op_name="jit(f)/augment/vmap()/gather" stack_frame_id=3}
  %dot.1 = f32[4,4]{1,0} dot(%fusion.1, %fusion.1), lhs_contracting_dims={1}, \
rhs_contracting_dims={1}, metadata={op_name="jit(f)/dot_general"}
}

%condition (arg.1: (s32[], f32[8,100])) -> pred[] {
  %limit = s32[]{:T(128)} constant(4)
  %i = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%small (s: f32[2]) -> f32[2] {
  %s = f32[2]{0} parameter(0)
  ROOT %negate.1 = f32[2]{0} negate(%s), metadata={op_name="jit(f)/cond/neg"}
}

%large (l: f32[2]) -> f32[2] {
  %l = f32[2]{0} parameter(0)
  %copy.1 = f32[2]{0} copy(%l)
  ROOT %negate.2 = f32[2]{0} negate(%copy.1)
}

%update (p: f32[1000], q: f32[10], r: s32[]) -> f32[1000] {
  %p = f32[1000]{0} parameter(0)
  %q = f32[10]{0} parameter(1)
  %r = s32[] parameter(2)
  ROOT %put = f32[1000]{0} dynamic-update-slice(%p, %q, %r)
}

ENTRY %main (x: f32[8,100]) -> f32[2] {
  %x = f32[8,100]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %copy-start.1 = (f32[8,100]{1,0:T(8,128)S(1)}, f32[8,100]{1,0:T(8,128)}, u32[]{:S(2)}) \
copy-start(%x)
  %copy-done.1 = f32[8,100]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %state = (s32[], f32[8,100]{1,0:T(8,128)}) tuple(%x)
  %while.1 = (s32[], f32[8,100]{1,0:T(8,128)}) while(%state), condition=%condition, body=%body
  %two = f32[2]{0} constant({1, 2})
  %which.1 = pred[] constant(false)
  %conditional.1 = f32[2]{0} conditional(%which.1, %two, %two), true_computation=%small, \
false_computation=%large
  %thousand = f32[1000]{0} constant({...})
  %fusion.2 = f32[1000]{0} fusion(%thousand, %two, %which.1), kind=kLoop, calls=%update
  %norm = f32[2]{0} add(%two, %two), metadata={op_name="jit(f)/encoder/layer1_0/bn1/add"}, \
backend_config={"window_config":{"estimated_cycles":"1500"}}
  ROOT %all-reduce.1 = f32[2]{0} all-reduce(%norm), replica_groups={{0,1}}, to_apply=%small
}
"""


@pytest.fixture(scope='module')
def found():
    return compile_costs.costs(hlo.parse(TEXT))


def of(found, name):
    (cost,) = [cost for cost in found if cost.instruction.name == name]
    return cost


def test_what_runs_and_how_often(found):
    times = {cost.instruction.name: cost.times for cost in found}
    assert times == {
        'copy-start.1': 1, 'fusion.1': 4, 'dot.1': 4, 'copy.1': 1, 'negate.2': 1, 'fusion.2': 1,
        'norm': 1, 'all-reduce.1': 1,
    }  # fmt: skip


def test_bytes_are_those_of_memory_outside_of_the_chip(found):
    assert of(found, 'copy-start.1').bytes == 8 * 128 * 4  # read in tiles; written on the chip
    # Of 3,200 bytes only the rows gathered; the indices; the result.
    assert of(found, 'fusion.1').bytes == 4 * 100 * 4 + 4 * 4 + 4 * 100 * 4
    assert of(found, 'fusion.2').bytes == 2 * 10 * 4 + 2 * 4 + 1  # in place
    assert of(found, 'norm').bytes == 3 * 2 * 4


def test_work_gathers_cycles_and_collectives(found):
    assert of(found, 'dot.1').flops == 2 * 4 * 4 * 100
    assert of(found, 'fusion.1').gathered == 4
    assert compile_costs.total(found, lambda cost: cost.gathered) == 16
    assert compile_costs.total(found, lambda cost: cost.cycles) == 1500
    assert compile_costs.collectives(found) == {'all-reduce': 1}


def test_parts(found):
    parts = {cost.instruction.name: cost.part for cost in found}
    assert parts == {
        'copy-start.1': 'copies', 'fusion.1': 'augmentation', 'dot.1': 'convolutions',
        'copy.1': 'copies', 'negate.2': 'other', 'fusion.2': 'other', 'norm': 'norms',
        'all-reduce.1': 'collectives',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('dtype', 'shape', 'layout', 'size'),
    [
        ('f32', '3,5', '{1,0}', 4 * 15),
        ('bf16', '16,512,512,16', '{3,2,1,0:T(8,128)(2,1)}', 2 * 16 * 512 * 512 * 128),
        ('bf16', '16,512,512,16', '{2,3,1,0:T(8,128)(2,1)}', 2 * 16 * 512 * 512 * 16),
        ('s4', '6', '{0}', 3),
        ('pred', '', '{:T(512)}', 1),
        ('f8e4m3fn', '3', '{0}', 3),
        ('f32', '10', '{0:T(128)S(1)}', 0),
    ],
)
def test_size_of_an_array_with_its_padding(dtype, shape, layout, size):
    assert hlo._array(dtype, shape, layout).bytes == size


@pytest.mark.parametrize('stride', [1, 2])
def test_products_of_a_convolution_and_its_gradients(stride):
    """As XLA writes all three on this machine, against 2 x outputs x what each sums over."""

    def convolution(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    def all_three(x, kernel, gradient):
        y, gradients = jax.vjp(convolution, x, kernel)
        return y, gradients(gradient)

    size = 16
    x, kernel = jnp.ones((2, size, size, 8)), jnp.ones((3, 3, 8, 4))
    gradient = jnp.ones((2, size // stride, size // stride, 4))
    text = jax.jit(all_three).lower(x, kernel, gradient).compile().as_text()
    flops = compile_costs.total(compile_costs.costs(hlo.parse(text)), lambda cost: cost.flops)
    assert flops == pytest.approx(3 * 2 * gradient.size * 9 * 8, rel=1e-6)


@pytest.mark.parametrize(
    ('target', 'operands', 'result'),
    [
        ('Forward', ('2,16,16,8', '4,3,3,8'), '2,8,8,4'),
        ('BackwardInput', ('2,8,8,4', '4,3,3,8'), '2,16,16,8'),
        ('BackwardFilter', ('2,16,16,8', '2,8,8,4'), '4,3,3,8'),
        ('BiasActivationForward', ('2,16,16,8', '4,3,3,8'), '2,8,8,4'),
    ],
)
def test_products_of_cudnn(target, operands, result):
    text = f"""HloModule jit_f
ENTRY %main (a: f32[{operands[0]}], b: f32[{operands[1]}]) -> f32[{result}] {{
  %a = f32[{operands[0]}]{{3,2,1,0}} parameter(0)
  %b = f32[{operands[1]}]{{3,2,1,0}} parameter(1)
  %conv = (f32[{result}]{{3,2,1,0}}, u8[0]{{0}}) custom-call(%a, %b), \
window={{size=3x3 pad=1_0x1_0 stride=2x2}}, dim_labels=b01f_o01i->b01f, \
custom_call_target="__cudnn$conv{target}"
}}
"""
    found = compile_costs.costs(hlo.parse(text))
    assert [cost.flops for cost in found] == [2 * 2 * 8 * 8 * 4 * 9 * 8]
    assert found[0].part == 'convolutions'


def flops_of_kernels(config):
    """Of each kernel that the network has: it is applied at every pixel of its output."""
    encoder = {'conv1': 2, 'layer1': 4, 'layer2': 8, 'layer3': 16, 'layer4': 32}
    decoder = {f'block{i}': 16 // 2**i for i in range(5)}
    strides = encoder | decoder | {'head': 1}
    for path, leaf in jax.tree_util.tree_leaves_with_path(build.variable_shapes(config)['params']):
        names = [key.key for key in path]
        if names[-1] == 'kernel' and len(leaf.shape) == 4:
            part = next(name.split('_')[0] for name in names if name.split('_')[0] in strides)
            side = -(-config.image_size // strides[part])
            yield 2 * side**2 * np.prod(leaf.shape)


@pytest.mark.parametrize(
    ('width', 'size', 'stage_sizes', 'channels'),
    [(64, 512, (3, 4, 6, 3), 3), (8, 64, (1, 2, 1, 1), 1), (4, 75, (1, 1, 1, 1), 3)],
)
def test_analytic_count_is_that_of_the_network(width, size, stage_sizes, channels):
    config = base.get_config()
    config.batch_size, config.image_size, config.model.width = 2, size, width
    config.model.stage_sizes, config.model.channels = stage_sizes, channels
    forward = sum(flops_of_kernels(config))
    assert programs.product_flops('evaluate', config) == 2 * forward
    assert programs.product_flops('predict', config) == 2 * 2 * forward
    stem = 2 * (-(-size // 2)) ** 2 * 49 * channels * width
    assert programs.product_flops('train', config) == 2 * (3 * forward - stem)


def test_memory_is_weights_and_so_much_an_image():
    class Stats:
        argument_size_in_bytes, temp_size_in_bytes, output_size_in_bytes = 120, 320, 110
        alias_size_in_bytes, generated_code_size_in_bytes = 100, 10

    chip = chips.CHIPS['v5e']._replace(memory=1000)
    result = compile_case.memory(chip, Stats(), fixed=90, batch_size=7)
    assert result['peak bytes'] == 450
    assert result['bytes an image'] == 50
    assert result['largest batch'] == 18  # 100 + 18 x 50


RESULT = {
    'compile s': 12.0, 'CPU s': 10.0, 'peak bytes': 2**31, 'bytes an image': 2**27,
    'largest batch': 100, 'FLOP': 197e10, 'bytes': 819e7, 'roofline s': 0.015, 'cycles': 30e6,
    'gathered': 4e6, 'collectives': {'all-reduce': 2}, 'analytic FLOP': 197e10,
    "bytes, XLA's count": None,
    'parts': {
        name: {'convolutions': 1.0, 'norms': 2.0, 'other': 0.0}
        for name in ('FLOP', 'bytes', 'roofline s', 'cycles', 'gathered')
    },
}  # fmt: skip


def test_table_and_json(tmp_path, capsys, monkeypatch):
    cases = []

    def compile_one(**case):
        cases.append(case)
        return {'failed': 'no'} if case['program'] == 'predict' else RESULT

    monkeypatch.setattr(compile, 'compile_one', compile_one)
    monkeypatch.setattr(chips, 'require', lambda chip: None)
    path = tmp_path / 'out.json'
    arguments = ['compile', '--chip=v5e', '--sizes', '64', '128', '--what', 'train', 'predict']
    assert run.main([*arguments, '--devices=4', f'--json={path}']) == 0
    assert [(case['size'], case['program']) for case in cases] == [
        (64, 'train'), (64, 'predict'), (128, 'train'), (128, 'predict')
    ]  # fmt: skip
    assert all(case['devices'] == 4 and case['batch'] == 16 for case in cases)
    written = json.loads(path.read_text())
    row = written['rows'][0]
    assert row['products ms'] == pytest.approx(10)  # at 197 TFLOP/s
    assert row['memory ms'] == pytest.approx(10)  # at 819 GB/s
    assert row['estimated ms'] == pytest.approx(20)  # at 1.5 GHz
    assert row['of analytic'] == 1
    assert row['collectives'] == '2 all-reduce'
    assert written['rows'][1]['compile s'] == 'failed'
    assert [part['part'] for part in written['more']['parts']] == ['convolutions', 'norms'] * 2
    printed = capsys.readouterr().out
    assert re.search(r'\| convolutions \|', printed)
    assert 'predict, 64 px, bfloat16: no' in printed


@pytest.mark.parametrize('name', ['v5e', 'h100'])
def test_a_compiler_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setattr(chips.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'pneumojax\[(tpu|cuda)\]'"):
        run.main(['compile', f'--chip={name}'])


def test_figures_of_the_chips_agree_with_each_other():
    """The descriptions of GPUs are XLA's, peaks and bandwidths the vendors'."""
    for chip in chips.CHIPS.values():
        if chip.platform == 'cuda':
            target = dict(chip.target)
            assert target['memory_bandwidth'] == pytest.approx(chip.bandwidth, rel=0.01)
            # bfloat16 FLOP a cycle of one multiprocessor: 2,048 on A100, 4,096 on H100, whose
            # data sheet has the clock of its tensor cores, not the highest.
            cycle = chip.bfloat16 / target['core_count'] / target['clock_rate_ghz'] / 1e9
            expected = {108: 2048, 132: 4096}[target['core_count']]
            assert 0.9 * expected < cycle <= 1.01 * expected
        if chip.platform == 'tpu' and chip.clock:
            assert chip.bfloat16 / chip.clock / (2 * 128 * 128) == pytest.approx(
                {'v5e': 4, 'v4': 8}[chip.name.split()[1]], rel=0.01
            )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['v5e', 'h100', 'cpu'])
def test_a_tiny_network_compiles_for(name):
    chip = chips.CHIPS[name]
    try:
        chips.require(chip)
    except UsageError as reason:
        pytest.skip(str(reason))
    case = {
        'chip': name, 'program': 'predict', 'size': 128, 'dtype': 'bfloat16', 'batch': 2,
        'devices': 1, 'width': 16, 'config': 'base', 'keep': '',
    }  # fmt: skip
    result = compile.compile_one(**case)
    assert 'failed' not in result, result
    config = compile_case.make_config(case)
    weights = 4 * sum(
        np.prod(leaf.shape) for leaf in jax.tree.leaves(programs.make_program('predict', config)[1])
    )
    assert result['peak bytes'] > weights
    # Libtpu cuts the images of a small batch in strips, which overlap.
    assert 0.8 < result['FLOP'] / result['analytic FLOP'] < 1.3
    assert result['bytes'] > weights
    assert (result['cycles'] > 0) == (chip.platform == 'tpu')
