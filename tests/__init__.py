"""Checks the shapes in annotations of arrays, in tests only: pyproject.toml names this checker.

`Float32[Array, 'B H W C']` costs nothing in the program. In tests, every call of a function in the
modules listed there is checked: a letter stands for one number in all arguments and the result.
"""

from collections.abc import Callable

import beartype


def check_array_types(function: Callable) -> Callable:
    """The type checker that jaxtyping wraps around each function; an int will do for a float."""
    return beartype.beartype(function, conf=beartype.BeartypeConf(is_pep484_tower=True))
