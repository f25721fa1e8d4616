"""Where dcmtk's own programs are: pynetdicom puts others of the same names before them."""

import os
import pathlib
import shutil
import sysconfig


def find(program: str) -> str | None:
    """The path of a program of the system, not one of this Python environment."""
    own = pathlib.Path(sysconfig.get_path('scripts'))
    folders = os.environ.get('PATH', os.defpath).split(os.pathsep)
    return shutil.which(
        program, path=os.pathsep.join(f for f in folders if pathlib.Path(f).resolve() != own)
    )
