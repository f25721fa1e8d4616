"""A network that Hugging Face's hub has, or is to have; the only module that can reach it."""

import os
import pathlib
from typing import Any

import huggingface_hub

from pneumojax.errors import UsageError
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.load import Predictor
from pneumojax.runs.run import Run
from pneumojax.runtimes import pretrained_folder
from pneumojax.system.atomic import refuse_existing


def check(name_or_path: str | os.PathLike) -> None:
    """Raises UsageError for a folder that is not as it was written, and for an impossible name."""
    if os.path.isdir(name_or_path):
        run = Run(name_or_path)
        if pretrained_folder.opened(run) is run:
            raise UsageError(
                f"{run.path} is no network in Hugging Face's layout: it has no "
                f'{pretrained_folder.SUMS}; write one with pneumojax.save_pretrained, or give a '
                'run directory to pneumojax.load'
            )
        return
    try:
        huggingface_hub.utils.validate_repo_id(os.fspath(name_or_path))
    except huggingface_hub.errors.HFValidationError:
        raise UsageError(
            f'{name_or_path} is no folder here, and no repository of the hub can have that name; '
            "give a folder that pneumojax.save_pretrained wrote, or 'name/network'"
        ) from None


class HubPredictor(Predictor, huggingface_hub.ModelHubMixin, library_name='pneumojax'):
    """What `pneumojax.from_pretrained` returns.

    `save_pretrained` writes files, and only `push_to_hub` sends them. No file is pickled.

    Args:
      folder: in Hugging Face's layout.
      runtime, precision: as for `load`.
    """

    def __init__(self, folder: pathlib.Path, runtime: str = 'auto', precision: str = 'auto'):
        check(folder)
        super().__init__(Ensemble([Run(folder)], runtime, precision, images=1))
        self._folder = folder

    def save_pretrained(self, save_directory: str | os.PathLike, **options: Any) -> str | None:
        """Writes the folder elsewhere, and its card; UsageError where a file exists already."""
        folder = pathlib.Path(save_directory)
        # The library would remove config.json first.
        refuse_existing(*(folder / name for name in pretrained_folder.FILES))
        return super().save_pretrained(folder, **options)

    def _save_pretrained(self, save_directory: pathlib.Path) -> None:
        (member,) = self._ensemble.members
        pretrained_folder.save(member, save_directory)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, runtime: str = 'auto', precision: str = 'auto', **download: Any
    ) -> 'HubPredictor':
        """A hook of the library: `download` is for `snapshot_download`."""
        folder = model_id
        if not os.path.isdir(folder):
            folder = huggingface_hub.snapshot_download(
                model_id, allow_patterns=[*pretrained_folder.FILES], **download
            )
        return cls(pathlib.Path(folder), runtime, precision)
