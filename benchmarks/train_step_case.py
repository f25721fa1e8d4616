"""One row of `train_step`, in a process of its own: prints a JSON object as its last line."""

import json
import os
import sys
import time

# Memory is counted, so it is taken as it is needed, not three quarters of it at once.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.programs import product_flops
from benchmarks.report import peak_resident_gib, seconds, watch
from configs import base
from pneumojax.augment.augment import CHANCES
from pneumojax.data.sampling import Plan
from pneumojax.models import build
from pneumojax.runtimes.choose import has_accelerator
from pneumojax.system import allocator
from pneumojax.system.devices import Devices
from pneumojax.training import optimizer, state, steps


def make_config(case, *, augmented: bool):
    """Stage 2's network, loss and optimizer (A) at another size, without averaging."""
    config = base.get_config()
    config.image_size, config.batch_size = case['size'], case['batch']
    config.model.width, config.model.dtype = case['width'], case['dtype']
    config.averaging.kind = 'none'
    if not augmented:
        config.augment.update(dict.fromkeys(CHANCES, 0.0))
    return config


def make_batch(case) -> dict[str, np.ndarray]:
    """Random images with a square as the mask of every second one."""
    rng, size = np.random.default_rng(0), case['size']
    images = rng.integers(0, 256, (case['batch'], size, size)).astype(np.uint8)
    masks = np.zeros_like(images)
    masks[::2, size // 4 : size // 2, size // 4 : size // 2] = 1
    return {'image': images, 'mask': masks, 'example': np.arange(case['batch'], dtype=np.int32)}


def peak(case) -> dict:
    """TFLOP/s of a matrix product as large as makes sense here."""
    n, dtype = (2048 if jax.default_backend() == 'cpu' else 8192), jnp.dtype(case['dtype'])
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    product = jax.jit(jnp.matmul)

    def ten():
        x = a
        for _ in range(10):
            x = product(x, a)
        x.block_until_ready()

    return {'TFLOP/s': 10 * 2 * n**3 / seconds(ten, 5).low / 1e12}


def with_jax(case, *, augmented: bool) -> dict:
    """This project's step."""
    config, devices = make_config(case, augmented=augmented), Devices(1)
    plan = Plan(np.zeros(100 * case['batch'], np.int32), np.array([100], np.int32), case['batch'])
    tx = optimizer.make_optimizer(config, plan)
    train_state = devices.replicate(state.create_state(build.initial_variables(config), tx))
    step = devices.compile(steps.make_train_step(config, tx), 'the step', donate=(0,))
    batch = make_batch(case)

    def run(count):
        nonlocal train_state
        for _ in range(count):
            train_state, metrics = step(train_state, devices.shard(batch))
        jax.block_until_ready((train_state, metrics))

    memory = devices.devices[0].memory_stats
    note = f'JAX on {devices.devices[0].device_kind}.'
    return _timed(
        case, run, note,
        lambda: memory()['peak_bytes_in_use'] / 2**30 if memory() else peak_resident_gib(),
    )  # fmt: skip


def with_torch(case, *, compiled: bool) -> dict:
    """The same in PyTorch, as its users are told to write it."""
    import torch
    from torch.nn import functional

    from benchmarks import torch_unet

    cuda = torch.cuda.is_available()
    device = torch.device('cuda' if cuda else 'cpu')
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    network = torch_unet.make_unet(case['width']).to(device, memory_format=torch.channels_last)
    optimize = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=cuda or None)
    dtype = torch.bfloat16 if case['dtype'] == 'bfloat16' else None

    def loss_of(images, masks):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = network(images)
        logits = logits.float()
        probabilities = torch.sigmoid(logits)
        both, total = (probabilities * masks).sum(), probabilities.sum() + masks.sum()
        dice = 1 - (2 * both + 1) / (total + 1)
        return functional.binary_cross_entropy_with_logits(logits, masks) + dice

    call = torch.compile(loss_of) if compiled else loss_of
    batch = {k: torch.from_numpy(v) for k, v in make_batch(case).items()}
    if cuda:
        batch = {k: v.pin_memory() for k, v in batch.items()}

    def run(count):
        for _ in range(count):
            images = batch['image'].to(device, non_blocking=True)[:, None].float() / 255
            images = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            masks = batch['mask'].to(device, non_blocking=True)[:, None].float()
            optimize.zero_grad(set_to_none=True)
            call(images, masks).backward()
            optimize.step()
        if cuda:
            torch.cuda.synchronize()

    kind = torch.cuda.get_device_name() if cuda else f'CPU, {torch.get_num_threads()} threads'
    note = f'PyTorch {torch.__version__} on {kind}; {torch_unet.origin(network)}.'
    return _timed(
        case, run, note,
        lambda: torch.cuda.max_memory_allocated() / 2**30 if cuda else peak_resident_gib(),
    )  # fmt: skip


def _timed(case, run, note: str, memory) -> dict:
    start = time.perf_counter()
    run(1)
    first = time.perf_counter() - start
    run(1)
    usage = watch(lambda: run(case['steps']), case['repeats'])
    rate = case['steps'] * case['batch'] / usage.seconds
    config = make_config(case, augmented=False)
    flops = product_flops('network', config) / config.batch_size
    return {
        'images/s': rate, 'TFLOP/s': rate * flops / 1e12, 'peak memory GiB': memory(),
        'CPU s/image': usage.own_cores / rate,
        'first call s': first, 'other cores': usage.other_cores, 'note': note,
    }  # fmt: skip


CASES = {
    'peak': peak,
    'pneumojax': lambda case: with_jax(case, augmented=False),
    'pneumojax, augmented': lambda case: with_jax(case, augmented=True),
    'PyTorch, compiled': lambda case: with_torch(case, compiled=True),
    'PyTorch, eager': lambda case: with_torch(case, compiled=False),
}

if __name__ == '__main__':
    settings = json.loads(sys.argv[1])
    if not has_accelerator():
        allocator.keep_freed_memory()  # as training does; PyTorch gains from it too
    print(json.dumps(CASES[settings['kind']](settings)))
