"""Exports a trained run's network for other programs.

torch       unet.safetensors (and unet.pth): smp loads it, strict=True
onnx        unet.onnx: grey uint8 to probabilities, for OpenVINO, ONNX Runtime and others
stablehlo   unet.stablehlo: the same function for `jax.export.deserialize`, on CPU, GPU or TPU
huggingface model.safetensors, config.json, the rule and the model card: see `pretrained_folder`

ONNX and StableHLO networks are compared with JAX before they are written.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.models import build, tta
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.runtimes import choose, ensemble_member, export_torch, exported, pretrained_folder
from pneumojax.runtimes.cpu_runtimes import OnnxRuntime
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.runtimes.exported import CannotExport
from pneumojax.system import limits
from pneumojax.system.progress import log, waiting

FORMATS = ('torch', 'onnx', 'stablehlo', 'huggingface')
PLATFORMS = ('cpu', 'cuda', 'tpu')
ANY = 'any'
LARGEST_LOGIT_ERROR = 0.02  # between two float32 programs; 0.005 of a probability at most
ODD = (1, 61, 87)  # batch, height and width; the sides are odd
Dimension = int | str  # a number, or a name if any number will do
Shape = tuple[Dimension, Dimension, Dimension]  # batch, height, width


def save_pretrained(run: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Writes an evaluated network into a folder in Hugging Face's layout.

    `load` reads it, and so does `--mode=predict --workdir=FOLDER`. Nothing is sent anywhere.

    Args:
      run: a run directory, trained and evaluated; of a run with stages, the last one is written.
      folder: files in it are not overwritten.

    Raises:
      UsageError: the run is not trained, not evaluated, or has folds; or a file exists already or
        cannot be written.
    """
    export(Run(run).config(), Run(run), os.fspath(folder), 'huggingface')


def export(
    config: ml_collections.ConfigDict,
    run: Run,
    output: str,
    format: str = 'torch',
    shape: str = '',
) -> None:
    """Writes a run's network into a folder; existing files are not overwritten.

    Args:
      config: the run's configuration.
      run: a trained run; of a run with stages, the last stage is exported. 'onnx' and 'stablehlo'
        use the weights and flips that the run was evaluated with, or those that
        `evaluation.weights` and `tta.flips` name if it was not evaluated.
      output: the folder.
      format: one of `FORMATS`.
      shape: 'BATCH,HEIGHT,WIDTH' of the input, each a number or 'any'; the default is any batch at
        the run's `image_size`. Only for 'onnx' and 'stablehlo'.

    Raises:
      UsageError: the run is not trained, or with another configuration, a file exists already, the
        folder cannot be written, a package is missing, or the exported network differs from JAX.
    """
    run.require_config(config)
    config, run = _one_run(config, pretrained_folder.opened(run))
    config_lib.check(config)
    step = run.checkpoints.latest_step()
    if step is None:
        raise UsageError(f'{run.path} has no checkpoint to export; train it first')
    if shape and format in ('torch', 'huggingface'):
        raise UsageError(f'--shape={shape} does not apply: a state dict fits every size')
    if format == 'huggingface':
        for path in pretrained_folder.save(ensemble_member.of_run(run), pathlib.Path(output)):
            log.info('wrote %s', path)
        return
    if format == 'torch':
        averaged = config.evaluation.weights == 'average' and run.checkpoints.has_average(step)
        shapes = build.variable_shapes(config)
        variables = run.checkpoints.load_variables(step, shapes, averaged=averaged)
        for path in export_torch.export_torch_all(variables, output):
            log.info(
                'wrote %s (%s weights, step %d)', path, 'averaged' if averaged else 'last', step
            )
        return
    member = ensemble_member.to_export(run, config)
    path = pathlib.Path(output) / f'unet.{format}'
    described = path.with_name(path.name + '.json')
    exported.refuse_complete(path, described)
    dimensions = parse_shape(shape, member.image_size)
    with waiting(f'exporting {run.path}'):
        make = onnx_and_description if format == 'onnx' else stablehlo_and_description
        content, description = make(member, dimensions)
    # The description last: where it is, the export is complete.
    text = json.dumps(description, indent=2) + '\n'
    exported.write({path: content, described: text.encode()})
    identity, agreement = member.identity, description['checked']
    log.info(
        'wrote %s (%s weights, step %d); its largest difference from JAX is %.1g',
        path, identity['weights'], identity['step'], agreement['largest_difference'],
    )  # fmt: skip


def _one_run(config: ml_collections.ConfigDict, run: Run) -> tuple[ml_collections.ConfigDict, Run]:
    """The last stage of a run with stages, or the run itself.

    Raises:
      UsageError: the run has folds.
    """
    if not run.exists:
        return config, run
    config_lib.check(run.config())
    if run.config().data.fold == config_lib.ALL_FOLDS:
        raise UsageError(f'{run.path} holds folds; export each: --workdir={run / "fold0"}')
    _, (last,) = layout.predicting_runs(run)
    return (config, run) if last.path == run.path else (last.config(), last)


def parse_shape(text: str, image_size: int) -> Shape:
    """(batch, height, width) from the flag, with a name where it says 'any'."""
    parts = text.split(',') if text else [ANY, str(image_size), str(image_size)]
    ok = len(parts) == 3 and all(
        p == ANY or (p.isdecimal() and len(p) < 10 and int(p) > 0) for p in parts
    )
    if not ok:
        raise UsageError(
            f"--shape={text}: expected BATCH,HEIGHT,WIDTH, each a number or '{ANY}', such as "
            f'{ANY},{image_size},{image_size}'
        )
    names = ('batch', 'height', 'width')
    batch, height, width = (n if p == ANY else int(p) for n, p in zip(names, parts, strict=True))
    pixels = math.prod(d if isinstance(d, int) else image_size for d in (height, width))
    if pixels * (batch if isinstance(batch, int) else 1) > limits.MAX_PIXELS:
        raise UsageError(
            f'--shape={text}: more than {limits.MAX_PIXELS} pixels, too many to check the export '
            f'on; give smaller numbers, or {ANY}'
        )
    return batch, height, width


def onnx_and_description(member: Member, shape: Shape) -> tuple[bytes, dict[str, Any]]:
    """An ONNX file's content and its description; the network was compared with JAX.

    Raises:
      CannotExport: the onnx package or ONNX Runtime is missing, the network has layers that the
        graph lacks, or its output differs from JAX.
    """
    for package in ('onnx', 'onnxruntime'):
        if not choose.is_installed(package):
            raise CannotExport(
                f"exporting ONNX needs the package {package}; pip install 'pneumojax[cpu]'"
            )
    from pneumojax.runtimes import onnx_builder, onnx_graph  # late: the package is an extra

    description, variables = _describe(member, shape), member.variables()
    try:
        model = onnx_graph.make(
            variables,
            normalization=member.config.model.normalization,
            flips=member.flips,
            shape=shape,
            gated=member.config.model.classification_head == 'gate',
            metadata={
                k: v if isinstance(v, str) else json.dumps(v) for k, v in description.items()
            },
        )
    except onnx_builder.Unknown as error:
        raise CannotExport(
            f'{member.identity["run"]} cannot be exported as ONNX: {error}'
        ) from None
    content = model.SerializeToString()
    start = OnnxRuntime().network(content)
    description['checked'] = _check(member, variables, lambda x: start(x)(), shape, 'ONNX')
    return content, description | {'sha256': hashlib.sha256(content).hexdigest()}


def stablehlo_and_description(member: Member, shape: Shape) -> tuple[bytes, dict[str, Any]]:
    """The serialised `jax.export.Exported` and its description; it was compared with JAX.

    'any' height or width means any multiple of 32: for other sizes JAX cannot prove that feature
    maps, halved and doubled again, fit their skips.
    """
    import jax
    from jax import export as jax_export

    description, variables = _describe(member, shape), member.variables()
    predict = jax.jit(lambda images: _reference(member)(variables, images))
    names: dict[Dimension, str] = {'height': '32*height', 'width': '32*width'}
    symbols = jax_export.symbolic_shape(', '.join(names.get(d, str(d)) for d in shape))
    with _without_source_locations():
        made = jax_export.export(predict, platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(symbols, np.uint8)
        )
    content = bytes(made.serialize(vjp_order=0))
    back = jax_export.deserialize(bytearray(content))
    run = jax.jit(back.call)
    description['checked'] = _check(
        member, variables, lambda x: np.asarray(run(x)), shape, 'StableHLO', multiple=32
    )
    description['platforms'] = list(PLATFORMS)
    return content, description | {'sha256': hashlib.sha256(content).hexdigest()}


@contextlib.contextmanager
def _without_source_locations() -> Iterator[None]:
    """JAX writes down which line of which file made each operation: paths, which are private."""
    import jax

    option = 'jax_traceback_in_locations_limit'
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _describe(member: Member, shape: Shape) -> dict[str, Any]:
    """The description of an exported file, for people and for `prediction.ensemble`."""
    return {
        'input': 'image: uint8 [batch, height, width], 0 to 255, MONOCHROME2 sense, fitted into '
        'a black square',
        'output': 'probability: float32 [batch, height, width], in [0, 1]',
        'shape': list(shape),
        'identity': {k: v for k, v in member.identity.items() if k != 'run'},  # paths are private
        'image_size': member.image_size,
        'batch_size': member.batch_size,
        'normalization': f'{member.config.model.normalization} (inside the network)',
        'rule': dataclasses.asdict(member.rule) if member.rule else None,
        'probability': dataclasses.asdict(member.calibration) if member.calibration else None,
        'evaluation': member.evaluation,
        'version': exported.VERSION,
    }


def _reference(member: Member) -> Callable[[Any, Any], Any]:
    """JAX's own prediction, in float32 on every device."""
    config = member.config.copy_and_resolve_references()
    config.model.dtype = 'float32'
    return tta.make_predict(config, build.make_model(config), member.flips, True)


def _check(
    member: Member,
    variables: Mapping[str, Any],
    candidate: Callable[[np.ndarray], np.ndarray],
    shape: Shape,
    format: str,
    multiple: int = 1,
) -> dict[str, Any]:
    """Compares with JAX on images of the shape, and of odd sides if the shape allows any.

    Args:
      member, variables: the network.
      candidate: its exported function, from uint8 [B, H, W] to probabilities.
      shape: the shapes it takes.
      format: its name in the error.
      multiple: of which 'any' height and width must be.

    Returns:
      JSON: what it was compared with, and the largest difference.

    Raises:
      CannotExport: they differ, at a pixel of any image, by more than rounding explains.
    """
    import jax

    reference = jax.jit(_reference(member))
    sizes = [(2, member.image_size, member.image_size), ODD]
    worst = 0.0
    for size in sizes[: 1 + any(isinstance(d, str) for d in shape[1:])]:
        size = tuple(
            given if isinstance(given, int) else max(1, -(-d // m)) * m
            for given, d, m in zip(shape, size, (1, multiple, multiple), strict=True)
        )
        for images in odd_images(*size):
            expected = np.asarray(reference(variables, images))
            actual = candidate(images)
            difference = np.abs(actual - expected)
            # An error e of a logit changes the probability p by e p (1 - p).
            allowed = LARGEST_LOGIT_ERROR * expected * (1 - expected) + 1e-6
            if actual.shape != expected.shape or not (difference <= allowed).all():
                raise CannotExport(
                    f'{member.identity["run"]}: its {format} network differs from JAX by up to '
                    f'{float(np.nanmax(difference)):.2g} at {size}; nothing was written'
                )
            worst = max(worst, float(difference.max()))
    return {'against': 'JAX, float32', 'largest_difference': worst}


def odd_images(batch: int, height: int, width: int) -> Sequence[np.ndarray]:
    """Batches of noise, ramps, a bright edge and flat images.

    Returns:
      uint8 arrays [batch, height, width].
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (batch, height, width), dtype=np.uint8)
    ramp = np.linspace(0, 255, height)[:, None] * np.linspace(0, 1, width)[None]
    mixed = [ramp, 255 - ramp, np.zeros((height, width)), np.full((height, width), 255)]
    mixed[2][:, -1:] = 255
    flat = np.stack([mixed[i % len(mixed)] for i in range(max(batch, len(mixed)))])
    whole = np.ascontiguousarray(flat.astype(np.uint8))
    return [noise, *(whole[i : i + batch] for i in range(0, len(whole) - batch + 1, batch))]
