"""A trained run's network in the formats of other programs."""

from pneumojax.errors import UsageError
from pneumojax.models import build
from pneumojax.outputs import export_torch
from pneumojax.progress import log
from pneumojax.run import Run

FORMATS = ('torch',)


def export(config, run: Run, output: str) -> None:
    """Writes a state dict that `segmentation_models_pytorch.Unet('resnet34')` loads, strict=True.

    Args:
      config: the run's configuration; `evaluation.weights` says which weights.
      run: a trained run.
      output: folder for unet.safetensors, and unet.pth where PyTorch is installed.

    Raises:
      UsageError: nothing trained, a file that exists already, or a folder that cannot be written.
    """
    step = run.latest_step()
    if step is None:
        raise UsageError(f'{run.path} has no checkpoint to export; train it first')
    averaged = config.evaluation.weights == 'average' and 'average_params' in run.items(step)
    variables = run.load_variables(step, build.variable_shapes(config), averaged=averaged)
    for path in export_torch.export_torch_all(variables, output):
        log.info('wrote %s (%s weights, step %d)', path, 'averaged' if averaged else 'last', step)
