"""The chips that `benchmarks.run compile` compiles for, with figures and their sources.

Nothing of a chip has to be present: JAX compiles for a described topology, with libtpu for TPUs and
with the CUDA plugin and a description of the GPU for NVIDIA's.
"""

import importlib.util
import os
from typing import Any, NamedTuple

from pneumojax.errors import UsageError


class Chip(NamedTuple):
    """One chip. Peaks are those of dense products, as JAX multiplies by default."""

    name: str
    platform: str  # JAX's: 'tpu', 'cuda' or 'cpu'
    source: str  # of the figures
    bfloat16: float | None = None  # FLOP/s
    float32: float | None = None  # FLOP/s; one bfloat16 pass on a TPU, TF32 on a GPU
    bandwidth: float | None = None  # of its memory, bytes/s
    memory: int | None = None  # bytes that a program can use
    clock: float | None = None  # Hz, to turn a compiler's cycles into seconds
    topology: str = ''  # the smallest that opens; its first devices are taken
    cores: str = ''  # libtpu's name for how a chip's cores are used; empty: its default
    target: tuple[tuple[str, Any], ...] = ()  # what distinguishes a GPU for XLA

    def peak(self, dtype: str) -> float | None:
        """FLOP/s of products of this type."""
        return self.bfloat16 if dtype == 'bfloat16' else self.float32


# JAX takes this share of a GPU's memory by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
_GPU_SHARE = 0.75

_TPU = 'cloud.google.com/tpu/docs/{}; memory: what libtpu says when a program is too large'
_NVIDIA = "NVIDIA's data sheet, without sparsity; memory: 75 % of {} GB, JAX's default share"

CHIPS = {
    'v5e': Chip(
        'TPU v5e', 'tpu', _TPU.format('v5e'), 197e12, 197e12, 819e9, int(15.75 * 2**30),
        clock=1.5e9,  # 197 TFLOP/s of 4 units of 128 x 128, 2 FLOP a cycle
        topology='v5e:2x2x1',
    ),
    'v4': Chip(
        'TPU v4', 'tpu', _TPU.format('v4'), 275e12, 275e12, 1200e9, int(30.75 * 2**30),
        clock=1.05e9,  # 275 TFLOP/s of 8 units of 128 x 128
        topology='v4:2x2x1',
        cores='megacore',  # both cores of a chip are one device, as on Google's machines
    ),
    'v6e': Chip(
        'TPU v6e', 'tpu', _TPU.format('v6e'), 918e12, 918e12, 1638e9, int(31.25 * 2**30),
        topology='v6e:2x2x1',
    ),
    'a100': Chip(
        'A100 SXM 40 GB', 'cuda', _NVIDIA.format(40), 312e12, 156e12, 1555e9,
        int(_GPU_SHARE * 42331013120),
        target=(
            ('shared_memory_per_core', 167936), ('core_count', 108), ('fpus_per_core', 64),
            ('memory_bandwidth', 1555200000000), ('l2_cache_size', 41943040),
            ('clock_rate_ghz', 1.41), ('device_memory_size', 42331013120),
            ('shared_memory_per_block_optin', 166912),
            ('cuda_compute_capability', '{ major: 8 }'),
        ),
    ),
    'h100': Chip(
        'H100 SXM 80 GB', 'cuda', _NVIDIA.format(80), 989e12, 494e12, 3350e9,
        int(_GPU_SHARE * 84942979072),
        target=(
            ('shared_memory_per_core', 233472), ('core_count', 132), ('fpus_per_core', 128),
            ('memory_bandwidth', 3352320000000), ('l2_cache_size', 52428800),
            ('clock_rate_ghz', 1.98), ('device_memory_size', 84942979072),
            ('shared_memory_per_block_optin', 232448),
            ('cuda_compute_capability', '{ major: 9 }'),
        ),
    ),
    'cpu': Chip('this CPU', 'cpu', 'not known'),
}  # fmt: skip

# The same on both GPUs, and the versions that the jax[cuda12] wheels come with.
_ANY_GPU = (
    ('threads_per_block_limit', 1024), ('threads_per_warp', 32),
    ('shared_memory_per_block', 49152), ('threads_per_core_limit', 2048),
    ('block_dim_limit_x', 2147483647), ('block_dim_limit_y', 65535), ('block_dim_limit_z', 65535),
    ('registers_per_core_limit', 65536), ('registers_per_block_limit', 65536),
)  # fmt: skip
_VERSIONS = """platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 patch: 0 }
"""

# Set before JAX is imported: no accelerator is looked for, and libtpu asks no metadata server.
ENVIRONMENT = {
    'JAX_PLATFORMS': 'cpu',
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0',
    'TPU_LOG_DIR': 'disabled',
    'TF_CPP_MIN_LOG_LEVEL': '2',
}

_NEEDS = {
    'tpu': (('libtpu',), "pip install 'pneumojax[tpu]'"),
    'cuda': (('jax_cuda12_plugin', 'jax_cuda13_plugin'), "pip install 'pneumojax[cuda]'"),
}


def require(chip: Chip) -> None:
    """Raises UsageError where the compiler for this chip is not installed."""
    if chip.platform not in _NEEDS:
        return
    packages, command = _NEEDS[chip.platform]
    if not any(importlib.util.find_spec(name) for name in packages):
        raise UsageError(f'compiling for {chip.name} needs {packages[0]}: {command}')


def devices(chip: Chip, count: int) -> list:
    """`count` devices of such a chip, to compile for. Call it where `ENVIRONMENT` is set."""
    import jax
    from jax.experimental import topologies

    if chip.platform == 'cpu':
        return jax.devices()[:count]
    if chip.platform == 'tpu':
        cores = {'chip_config_name': chip.cores} if chip.cores else {}
        found = topologies.get_topology_desc(platform='tpu', topology_name=chip.topology, **cores)
    else:
        found = topologies.get_topology_desc(
            platform='cuda', topology_name=chip.name, topology=f'1x1x{count}',
            target_config=gpu_target(chip),
        )  # fmt: skip
    return list(found.devices[:count])


def environment(chip: Chip, count: int) -> dict[str, str]:
    """The environment of a process that compiles for `count` of these chips."""
    variables = {**os.environ, **ENVIRONMENT}
    if chip.platform == 'cpu' and count > 1:
        flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={count}'
        variables['XLA_FLAGS'] = flags.strip()
    return variables


def gpu_target(chip: Chip) -> str:
    """The GPU as XLA's `GpuTargetConfigProto`, in text.

    The values are those of the specifications in XLA's repository
    (xla/backends/gpu/target_config/specs/a100_sxm_40.txtpb and h100_sxm.txtpb), which the driver
    reports for these GPUs.
    """
    fields = [
        f'  {name} {value}' if isinstance(value, str) else f'  {name}: {value}'
        for name, value in (*_ANY_GPU, *chip.target)
    ]
    info = '\n'.join(['gpu_device_info {', *fields, '}'])
    return f'{info}\n{_VERSIONS}device_description_str: "{chip.name}"\n'
