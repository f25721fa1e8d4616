"""`pneumojax.from_pretrained`: where the hub is reached, if `huggingface_hub` is installed."""

import os
from typing import TYPE_CHECKING, Any

from pneumojax.errors import UsageError

if TYPE_CHECKING:
    from pneumojax.prediction.hub import HubPredictor


def from_pretrained(
    name_or_path: str | os.PathLike,
    *,
    runtime: str = 'auto',
    precision: str = 'auto',
    **download: Any,
) -> 'HubPredictor':
    """Loads a folder that `save_pretrained` wrote, from here or from Hugging Face's hub.

    Needs `pip install 'pneumojax[hub]'`. `load` reads local folders without it.

    Args:
      name_or_path: the folder; anything else is a repository, such as 'name/network', which is
        downloaded.
      runtime, precision: as for `load`.
      download: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only` of
        `huggingface_hub.snapshot_download`.

    Returns:
      What `load` returns, with `save_pretrained(folder)` and `push_to_hub(repo_id)` of
      `huggingface_hub.ModelHubMixin`.

    Raises:
      UsageError: the package is missing, or a file is missing, damaged or was changed.
    """
    try:
        from pneumojax.prediction import hub
    except ImportError:
        raise UsageError(
            "from_pretrained needs the package huggingface_hub; pip install 'pneumojax[hub]', or "
            'load a folder on this machine with pneumojax.load'
        ) from None
    hub.check(name_or_path)  # before huggingface_hub reads a config.json that may be damaged
    return hub.HubPredictor.from_pretrained(
        os.fspath(name_or_path), runtime=runtime, precision=precision, **download
    )
