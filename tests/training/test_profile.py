"""Traces of training steps: which steps are in them, and that nothing else changes."""

import jax
import numpy as np
import pytest

from pneumojax.training.profile import WARM_UP, Profile


def traced_steps(folder):
    """Numbers of the steps that the traces in a folder name."""
    found = []
    for path in folder.rglob('*.xplane.pb'):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                found += [
                    dict(event.stats)['step_num'] for event in line.events if event.name == 'train'
                ]
    return sorted(found)


@pytest.mark.parametrize(
    ('count', 'calls', 'expected'),
    [(2, 8, [WARM_UP + 1, WARM_UP + 2]), (9, WARM_UP + 1, [WARM_UP + 1]), (0, 8, [])],
)
def test_steps_after_compilation_are_traced(tmp_path, count, calls, expected):
    """As many as asked for, or those that there were."""
    add = jax.jit(lambda x: x + 1)
    x = np.zeros(3)
    with Profile(tmp_path / 'profile', count) as profile:
        for _ in range(calls):
            x = profile.step(add, x)
    np.testing.assert_array_equal(x, calls)
    assert traced_steps(tmp_path) == expected
    assert (tmp_path / 'profile').exists() == bool(count)


def test_a_run_that_is_too_short_says_so_and_an_error_ends_the_trace(tmp_path, messages):
    with Profile(tmp_path, 5) as profile:
        profile.step(lambda: None)
    assert 'nothing was traced: training ended after 1 steps' in messages

    profile = Profile(tmp_path, 5)
    for _ in range(WARM_UP + 1):
        profile.step(lambda: None)
    profile.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert traced_steps(tmp_path) == [WARM_UP + 1]
    jax.profiler.start_trace(tmp_path / 'another')  # refused while one is going on
    jax.profiler.stop_trace()
