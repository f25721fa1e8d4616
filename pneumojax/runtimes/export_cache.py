"""The exported copy beside a run: made when another runtime than JAX wants it, then reused."""

import hashlib
import json
import pathlib
import shutil
from typing import Any

from pneumojax.runtimes import exported
from pneumojax.runtimes.member import Member
from pneumojax.system import atomic
from pneumojax.system.progress import log, waiting


def model_of(member: Member) -> str | bytes:
    """Path of a member's ONNX file; made beside its run first where it is not there.

    Returns:
      The path; or the file's content, where the run's directory cannot be written.

    Raises:
      UsageError: it cannot be made, or differs from JAX.
    """
    if member.folder is not None:
        return str(member.folder / exported.MODEL)
    assert member.run is not None  # or it has a folder
    target = member.run / 'exported' / _key(member)
    if exported.is_export(target):
        exported.describe(target)
        return str(target / exported.MODEL)
    from pneumojax.runtimes import export

    with waiting(f'exporting {member.run.path} for this processor, once'):
        content, description = export.onnx_and_description(member, ('batch', *_square(member)))
    try:
        _publish(target, content, description)
    except OSError as error:
        log.info('%s cannot be written (%s): not kept for the next time', target, error.strerror)
        return content
    return str(target / exported.MODEL)


def _square(member):
    return (member.image_size,) * 2


def _key(member) -> str:
    """Changes with the weights, the network, its input and the graph."""
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
    """The folder appears whole; copies of other weights, which nothing reads any more, go."""
    target.parent.mkdir(exist_ok=True)
    with atomic.new_folder(target, exported.is_export) as unfinished:
        (unfinished / exported.MODEL).write_bytes(content)
        (unfinished / exported.DESCRIPTION).write_text(json.dumps(description, indent=2) + '\n')
    for other in target.parent.iterdir():
        if other != target and not other.name.startswith('.') and exported.is_export(other):
            shutil.rmtree(other, ignore_errors=True)
