"""Prediction on this machine: JAX, the exported network, and the same network in PyTorch.

    python -m benchmarks.run predict [--run=RUN] [--size=512]

Every way predicts the same squares with the same weights and flips, in turns, for several rounds;
the median round counts. Then each predicts a folder of DICOM files, from file to mask, with the
same threads. Last, a new process predicts one file and writes all default outputs.

On a GPU or TPU there are three rows of JAX: 'float32' is exact, 'auto' multiplies float32 as the
device does by default, and so does PyTorch's float32 on a GPU. PyTorch is compiled there.
"""

import functools
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.report import Report
from configs import base
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.models import build, pretrained
from pneumojax.prediction import outputs
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.folder import OutputFolder
from pneumojax.prediction.predict import finish_image
from pneumojax.prediction.streaming import Item, predicted_rows
from pneumojax.runs.run import Run
from pneumojax.runtimes import choose, cpu_runtimes
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.system.parallel import cores

WAYS = (
    ('jax', 'float32'), ('jax', 'auto'), ('jax', 'bfloat16'), ('openvino', 'float32'),
    ('openvino', 'bfloat16'), ('openvino', 'bfloat16_checked'), ('onnxruntime', 'float32'),
    ('torch', 'float32'), ('torch', 'bfloat16'),
)  # fmt: skip


class Way(NamedTuple):
    """One way to predict."""

    name: str
    precision: str
    one: Ensemble  # whose batches are one image
    many: Ensemble


def add_options(parser) -> None:
    """The options of `benchmarks.run predict`."""
    parser.add_argument(
        '--run', type=pathlib.Path, help='an evaluated run; default: random weights'
    )
    parser.add_argument('--size', type=int, default=512, help='pixels, without --run (512)')
    parser.add_argument('--width', type=int, default=64, help='channels, without --run (64)')
    parser.add_argument('--batch', type=int, default=4, help='images at once (4)')
    parser.add_argument('--rounds', type=int, default=5, help='whose median is reported (5)')
    parser.add_argument(
        '--files', type=int, default=16, help='in the folder; 0: skip this part (16)'
    )
    parser.add_argument('--fresh', type=int, default=3, help='new processes; 0: skip this part (3)')
    parser.add_argument(
        '--only',
        default='',
        help='such as openvino:bfloat16_checked (all); JAX always runs',
    )


def measure(options) -> Report:
    """A row for each way to predict."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        run = Run(options.run) if options.run else make_run(root / 'run', options)
        found = ways(run, options)
        config = run.config()
        rows = [{'by': way.name, 'precision': way.precision} for way in found]
        _rates(found, rows, options)
        if options.files:
            phantom.write_dataset(
                root / 'files', num_images=options.files, size=1024, seed=11, positive_share=0.5
            )
            _folder(found, rows, root)
        if options.fresh:
            _fresh(run, rows, root, options.fresh)
    return Report(rows, [
        f'{config.image_size} px, width {config.model.width}, flips '
        f'{found[0].many.members[0].flips}, batches of {options.batch}, {cores()} cores',
        f'weights: {options.run or "random"}',
        'ms: a batch of one image. images/s: the network alone, median of the rounds; range: '
        'slowest to fastest. CPU s/image: of all cores together, which depends less on how busy '
        'the machine is. folder: from file to mask; again: how many were predicted again in '
        'float32. first mask: a new process for one file, all outputs.',
    ])  # fmt: skip


def ways(run: Run, options) -> list[Way]:
    """Every runtime and precision that is available here, JAX in float32 first."""
    found = []
    for name, precision in [WAYS[0], *available(WAYS[1:], options.only)]:
        torch = name == 'torch'
        one, many = (
            Ensemble([run], 'jax' if torch else name, 'float32' if torch else precision, images)
            for images in (1, options.batch)
        )
        if torch:
            one._networks = many._networks = [torch_network(many.members[0], precision)]
            name = f'PyTorch, {"compiled" if _has_cuda() else "eager"}'
        found.append(Way(name, precision, one, many))
    return found


def available(ways: Iterable[tuple[str, str]], only: str) -> list[tuple[str, str]]:
    """The requested pairs of (runtime, precision) that are available on this machine.

    Args:
      ways: to choose from.
      only: comma-separated NAME or NAME:PRECISION; '' for all that are available.

    Raises:
      UsageError: a requested one needs instructions that the processor lacks.
    """
    asked, found = only.split(',') if only else [], []
    for name, precision in ways:
        wanted = not asked or name in asked or f'{name}:{precision}' in asked
        if not wanted or not choose.is_installed(name):
            continue
        if name == 'jax' and not choose.has_accelerator():
            continue  # float32 is all there is on a CPU; bfloat16 is slower
        if name == 'openvino':
            try:
                cpu_runtimes.OpenVINO(precision)
            except UsageError as error:
                if asked:
                    raise
                tqdm.write(f'left out: {error}')
                continue
        found.append((name, precision))
    return found


def torch_network(member: Member, precision: str) -> choose.Network:
    """The same weights in PyTorch: channels last, in inference mode, bfloat16 by autocast."""
    import torch

    from benchmarks import torch_unet
    from pneumojax.models import normalize

    variables = member.variables()
    _, channels, width, stages = pretrained.network_shape(variables)
    network = torch_unet.make_unet(width, channels, stages)
    state = {k: torch.from_numpy(v.copy()) for k, v in pretrained.to_torch(variables).items()}
    network.load_state_dict(state)
    device = torch.device('cuda' if _has_cuda() else 'cpu')
    torch.backends.cudnn.allow_tf32 = True
    network = network.eval().to(device, memory_format=torch.channels_last)
    if device.type == 'cuda':
        network = torch.compile(network, dynamic=False)
    axes = [{'horizontal': 3, 'vertical': 2}[flip] for flip in member.flips]
    kind = member.config.model.normalization

    def start(images):
        x = np.asarray(normalize.normalize(images[..., None], kind, channels)).transpose(0, 3, 1, 2)
        x = torch.from_numpy(np.array(x, order='C')).to(device)
        x = x.contiguous(memory_format=torch.channels_last)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bfloat16'),
        ):
            views = torch.cat([x, *(x.flip(axis) for axis in axes)])
            first, *others = torch.sigmoid(network(views).float()).split(len(x))
            views = [first, *(o.flip(axis) for o, axis in zip(others, axes, strict=True))]
            result = torch.stack(views).mean(0)[:, 0].cpu().numpy()
        return lambda: result

    return start


def _has_cuda() -> bool:
    """Whether PyTorch is installed and has a GPU."""
    if not choose.is_installed('torch'):
        return False
    import torch

    return torch.cuda.is_available()


def _rates(found, rows, options) -> None:
    """Latency of one image and images/s, the ways in turns."""
    size = found[0].many.sizes[0]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.batch, size, size), dtype=np.uint8)
    taken = {key: [[] for _ in found] for key in ('one', 'batch', 'work')}
    for round_ in range(options.rounds + 1):  # the first one, which compiles, is not counted
        for i, way in enumerate(found):
            for key, ensemble, part in (
                ('one', way.one, images[:1]),
                ('batch', way.many, images),
            ):
                start, work = time.perf_counter(), time.process_time()
                ensemble.predict({size: part})
                if round_:
                    taken[key][i].append(time.perf_counter() - start)
                if round_ and key == 'batch':
                    taken['work'][i].append(time.process_time() - work)
    for row, one, batch, work in zip(rows, *taken.values(), strict=True):
        row['ms'] = 1000 * statistics.median(one)
        row['images/s'] = options.batch / statistics.median(batch)
        row['CPU s/image'] = statistics.median(work) / options.batch
        row['slowest-fastest'] = (
            f'{options.batch / max(batch):.3g}-{options.batch / min(batch):.3g}'
        )
    of = {(row['by'].partition(',')[0], row['precision']): row['images/s'] for row in rows}
    for row in rows:
        row['x JAX'] = row['images/s'] / of['jax', 'float32']
        if peer := of.get(('PyTorch', 'bfloat16')):
            row['x PyTorch bf16'] = row['images/s'] / peer


def _folder(found, rows, root) -> None:
    """Files a second, from DICOM to mask: reading, fitting, predicting, writing."""
    paths = sorted((root / 'files').rglob('*.dcm'))
    items = [Item(str(path), path.name, path.stem) for path in paths]
    for i, (way, row) in enumerate(zip(found, rows, strict=True)):
        options = outputs.Options(seg='none', overlays=False, report=False)
        with OutputFolder(root / f'masks{i}', {}, outputs.PER_IMAGE) as folder:
            finish = functools.partial(
                finish_image, ensemble=way.many, folder=folder, options=options
            )
            start = time.perf_counter()
            done = list(predicted_rows(way.many, items, finish))
            row['folder images/s'] = len(done) / (time.perf_counter() - start)
            row['again'] = sum(one['predicted_again'] for one in done)
        if any(one['status'] != 'ok' for one in done):
            raise RuntimeError(f'{way.name} could not predict every file')


def _fresh(run, rows, root, repeats) -> None:
    """Seconds that the command takes for one file with its default outputs."""
    if not any((root / 'files').rglob('*.dcm')):
        phantom.write_dataset(root / 'files', num_images=1, size=1024, seed=11, positive_share=1.0)
    file = min((root / 'files').rglob('*.dcm'))
    for i, row in enumerate(rows):
        if row['by'].startswith('PyTorch'):
            continue
        command = [
            sys.executable, '-m', 'pneumojax.main', '--mode=predict', f'--workdir={run.path}',
            f'--input={file}', f'--runtime={row["by"]}', f'--precision={row["precision"]}',
        ]  # fmt: skip
        taken = []
        for repeat in range(repeats):
            output = root / f'fresh{i}-{repeat}'
            start = time.perf_counter()
            subprocess.run([*command, f'--output={output}'], check=True, stderr=subprocess.DEVNULL)
            taken.append(time.perf_counter() - start)
            if not any((output / 'masks').iterdir()):
                raise RuntimeError('a new process wrote no mask')
        row['first mask, s'] = statistics.median(taken)


def make_run(path, options) -> Run:
    """An untrained run with a rule, so that `predict` accepts it."""
    config = base.get_config()
    config.name, config.image_size, config.model.width = 'untrained', options.size, options.width
    run = Run(path)
    run.start(config)
    with run.checkpoints.writer(keep=1) as checkpointer:
        checkpointer.save_checkpointables(0, jax.device_get(build.initial_variables(config)))
    rule = {'top': 0.5, 'area': 0, 'bottom': 0.5, 'reference_pixels': 1024 * 1024}
    where = {'weights': 'last', 'flips': config.tta.flips, 'step': 0, 'image_size': options.size}
    run.write_json('thresholds.json', {**rule, **where})
    return run
