import os
import sys

import pytest

from pneumojax.runs import failed_writes

LONG = (
    'RESOURCE_EXHAUSTED: Error writing "x/c/0" in OCDBT database at local file "/a/b/": Failed '
    'writing: "/a/b/c": Failed to write 3166208 bytes to file 14: [os_error_code=\'28\']'
)


@pytest.mark.parametrize(
    ('error', 'cause'),
    [
        (OSError(30, os.strerror(30), '/a'), 'Read-only file system'),
        (ValueError(LONG), 'No space left on device'),
        (RuntimeError('a\n b'), 'RuntimeError: a b'),
    ],
)
def test_the_cause_in_a_few_words(error, cause):
    assert failed_writes.cause(error) == cause


def test_only_writes_that_nobody_waits_for_are_not_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, 'unraisablehook', shown.append)
    failed_writes.silence.__wrapped__()

    class Found:
        def __init__(self, error):
            self.exc_value = error

    others = Found(RuntimeError('other'))
    for found in (Found(RuntimeError('Event loop is closed')), others):
        sys.unraisablehook(found)
    assert shown == [others]
