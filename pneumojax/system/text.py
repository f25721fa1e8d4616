"""Text of unknown origin, such as the name of a file, made safe to show in tables and on pages."""

import html
import re
import unicodedata

# What a spreadsheet may take for the start of a formula; the last four are wide forms.
_FORMULA = ('=', '+', '-', '@', '\uff1d', '\uff0b', '\uff0d', '\uff20')
# Categories of Unicode: controls, marks of direction and other formatting, line and paragraph
# separators, and surrogates, which stand for bytes that are not UTF-8.
_INVISIBLE = ('Cc', 'Cf', 'Zl', 'Zp', 'Cs')


def visible(text: str) -> str:
    """The text on one line, with an escape for every character that does not show as itself.

    Characters such as U+202E turn the order of others around. File names may hold any of them.
    """
    return ''.join(
        _escape(char) if unicodedata.category(char) in _INVISIBLE else char for char in text
    )


def cell(text: str) -> str:
    """The text as a cell of a table: visible, and no formula for a spreadsheet.

    Formulas get an apostrophe in front (OWASP, "CSV Injection"). A cell of a cell is the same.
    """
    shown = visible(text)
    return "'" + shown if shown.startswith(_FORMULA) else shown


def markdown(text: str) -> str:
    """A user's text with its Markdown and HTML escaped (CommonMark 0.31, 2.4 and 2.5)."""
    escaped = re.sub(r'([\\`*_{}\[\]()#|~!$])', r'\\\1', visible(text))
    return html.escape(escaped, quote=False)


def _escape(char: str) -> str:
    if '\udc80' <= char <= '\udcff':  # see `os.fsdecode`
        return f'\\x{ord(char) - 0xDC00:02x}'
    return char.encode('unicode_escape').decode()
