"""Builds a pure function once for equal configurations, so that JAX compiles it once a process."""

import functools
from collections.abc import Callable
from typing import Any

import ml_collections

_KEPT = 16  # functions of one builder; their compiled programs stay in memory with them


def memoize(*groups: str) -> Callable[[Callable], Callable]:
    """Makes a builder of pure functions return the same function for the same values.

    JAX caches compiled programs by function. Folds, seeds of an ablation and stages of one size
    differ in data and weights, but not in how a validation step is computed.

    Args:
      groups: the parts of the configuration that the builder and its function read. They get a
        copy of the configuration, so later changes to it do no harm.

    Returns:
      A decorator of `build(config, *arguments) -> function`. Each argument is hashable, or a list
      of hashable values.
    """

    def decorate(build: Callable) -> Callable:
        made: dict[tuple, Callable] = {}

        @functools.wraps(build)
        def builder(config: ml_collections.ConfigDict, *arguments: Any) -> Callable:
            arguments = tuple(tuple(a) if isinstance(a, list) else a for a in arguments)
            key = (*(str(config[group]) for group in groups), *arguments)
            if key not in made:
                if len(made) == _KEPT:
                    del made[next(iter(made))]
                made[key] = build(config.copy_and_resolve_references(), *arguments)
            return made[key]

        return builder

    return decorate
