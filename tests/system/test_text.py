"""Text of unknown origin in tables: against Python's own idea of what can be printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumojax.system import text


@given(st.text(st.characters(codec=None)))
def test_a_cell_is_one_printable_line_no_formula_and_stable(words):
    shown = text.cell(words)
    # Python also counts other spaces than ' ' and unassigned characters among the unprintable.
    assert all(c.isprintable() or c.isspace() or c in words for c in shown)
    assert len(shown.splitlines()) <= 1
    assert not shown.startswith(('=', '+', '-', '@', '\t', '\r'))
    assert text.cell(shown) == shown


@pytest.mark.parametrize(
    ('raw', 'shown'),
    [
        ('study 1/image.dcm', 'study 1/image.dcm'), ('Ä ö', 'Ä ö'), ('=cmd()', "'=cmd()"),
        ('-2.5', "'-2.5"), ('a\tb\r\n', r'a\tb\r\n'), ('\x1b[31m', r'\x1b[31m'),
        ('abc\u202egnp', r'abc\u202egnp'), ('\ufeff=1', r'\ufeff=1'), ('\udcff', r'\xff'),
        ('\u2029', r'\u2029'), ('', ''),
    ],
)  # fmt: skip
def test_cells(raw, shown):
    assert text.cell(raw) == shown
