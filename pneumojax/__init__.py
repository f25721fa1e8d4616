"""Pneumothorax segmentation in chest radiographs, in JAX; `pneumojax.main` is the program.

`__all__` is the public interface; each name is loaded when it is first used, so that
`import pneumojax` is quick. Everything else is internal and may change.
"""

# Nothing is imported here: `python -m pneumojax.main` would take it from the working directory, as
# the first lines of `main` have not run yet.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pneumojax.data import rle
    from pneumojax.data.files.dicom import read as read_dicom
    from pneumojax.evaluation.metrics import dice
    from pneumojax.models.resnet import ResNet34
    from pneumojax.models.unet import UNet
    from pneumojax.prediction.from_hub import from_pretrained
    from pneumojax.prediction.load import load
    from pneumojax.runtimes.export import save_pretrained
    from pneumojax.training.steps import make_train_step

__version__ = '0.1.0'
__all__ = [
    'ResNet34',
    'UNet',
    '__version__',
    'dice',
    'from_pretrained',
    'load',
    'make_train_step',
    'read_dicom',
    'rle',
    'save_pretrained',
]

_PLACES = {
    'ResNet34': 'pneumojax.models.resnet:ResNet34',
    'UNet': 'pneumojax.models.unet:UNet',
    'dice': 'pneumojax.evaluation.metrics:dice',
    'from_pretrained': 'pneumojax.prediction.from_hub:from_pretrained',
    'load': 'pneumojax.prediction.load:load',
    'make_train_step': 'pneumojax.training.steps:make_train_step',
    'read_dicom': 'pneumojax.data.files.dicom:read',
    'rle': 'pneumojax.data.rle',  # with `encode` and `decode`
    'save_pretrained': 'pneumojax.runtimes.export:save_pretrained',
}


def __getattr__(name: str) -> object:
    import pkgutil

    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = pkgutil.resolve_name(_PLACES[name])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
