"""Pure functions are built once for equal configurations: JAX then compiles them once a process."""

import functools
from collections.abc import Callable

_KEPT = 16  # of one builder; compiled programs stay in memory with their function


def memoize(*groups: str) -> Callable[[Callable], Callable]:
    """Makes a builder of pure functions return the same one for the same values.

    JAX keeps what it traced and compiled by function. Folds, seeds of an ablation and stages of one
    size differ in data and weights, not in how a validation step is computed.

    Args:
      groups: of the configuration, all that the builder and its function read. They get a copy,
        which nobody changes later.

    Returns:
      A decorator of `build(config, *arguments) -> function`; arguments are hashable, or lists of
      what is.
    """

    def decorate(build):
        made: dict[tuple, Callable] = {}

        @functools.wraps(build)
        def builder(config, *arguments):
            arguments = tuple(tuple(a) if isinstance(a, list) else a for a in arguments)
            key = (*(str(config[group]) for group in groups), *arguments)
            if key not in made:
                if len(made) == _KEPT:
                    del made[next(iter(made))]
                made[key] = build(config.copy_and_resolve_references(), *arguments)
            return made[key]

        return builder

    return decorate
