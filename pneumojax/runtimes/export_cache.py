"""The exported copy beside a run: made when a CPU runtime first needs it, then reused."""

import hashlib
import json
import pathlib
import shutil
from typing import Any

from pneumojax.runtimes import exported
from pneumojax.runtimes.ensemble_member import Member
from pneumojax.system import atomic
from pneumojax.system.progress import log, waiting


def model_of(member: Member) -> str | bytes:
    """A member's ONNX file, which is first made beside its run if it is not there.

    Returns:
      The file's path; its content if the run's directory cannot be written.

    Raises:
      UsageError: the network cannot be exported, or differs from JAX.
    """
    if member.folder is not None:
        return str(member.folder / exported.MODEL)
    assert member.run is not None  # a member has a folder or a run
    target = member.run / 'exported' / _key(member)
    if exported.is_export(target):
        exported.describe(target)
        return str(target / exported.MODEL)
    from pneumojax.runtimes import export

    size = member.image_size
    with waiting(f'exporting {member.run.path} for CPU runtimes, once'):
        content, description = export.onnx_and_description(member, ('batch', size, size))
    try:
        _publish(target, content, description)
    except OSError as error:
        log.info('%s cannot be written (%s): the export is not kept', target, error.strerror)
        return content
    return str(target / exported.MODEL)


def _key(member: Member) -> str:
    """A folder name that depends on the weights, the network, its input and the graph."""
    assert member.run is not None
    identity = member.identity
    ingredients = [
        exported.VERSION,
        {k: v for k, v in identity.items() if k != 'run'},  # a run may be moved
        str(member.config.model),
        member.run.checkpoints.statement(identity['step']),
    ]
    digest = hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()
    return f'{identity["step"]}-{identity["weights"]}-{identity["image_size"]}-{digest[:16]}'


def _publish(target: pathlib.Path, content: bytes, description: dict[str, Any]) -> None:
    """Writes the folder atomically, then removes copies of other weights, which are stale."""
    target.parent.mkdir(exist_ok=True)
    with atomic.new_folder(target, exported.is_export) as unfinished:
        (unfinished / exported.MODEL).write_bytes(content)
        (unfinished / exported.DESCRIPTION).write_text(json.dumps(description, indent=2) + '\n')
    for other in target.parent.iterdir():
        if other != target and not other.name.startswith('.') and exported.is_export(other):
            shutil.rmtree(other, ignore_errors=True)
