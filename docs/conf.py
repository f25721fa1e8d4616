"""How the documentation's site is built.

    python -m sphinx -W -b html docs build/docs

Nothing in it is fetched from elsewhere: pages work from the disk, search included.
"""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from docutils import nodes

from docs import from_code

project = 'pneumojax'
author = 'the pneumojax authors'
copyright = author
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
source_suffix = {'.md': 'markdown'}

smartquotes = False  # they would turn --workdir into a dash and a word
default_role = 'literal'  # docstrings set `code` in single marks

html_theme = 'furo'
html_title = 'pneumojax'
html_static_path = []
html_show_sphinx = html_copyright = False
# Summaries in the search's results are fetched page by page, which browsers forbid on the disk.
html_show_search_summary = False
html_copy_source = False
html_theme_options = {  # the colours of the program's own reports
    'light_css_variables': {'color-brand-primary': '#8a5c00', 'color-brand-content': '#8a5c00'},
    'dark_css_variables': {'color-brand-primary': '#f0b43c', 'color-brand-content': '#f0b43c'},
}

myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # docstrings say shapes, units and ranges, which types do not
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes as one list


def setup(app) -> None:
    """Fills the places for what is made of the code; shows the API as one would write it."""

    def fill(app, name, source):
        source[0] = from_code.fill(source[0])

    def plain(app, what, name, thing, options, signature, returns):
        if signature is None:  # of what is not called
            return None
        flax_own = r', parent=<[^>]*>, name=None'
        return re.sub(r"<class '([^']+)'>", r'\1', re.sub(flax_own, '', signature)), returns

    def dash(app, doctree):
        for text in [t for t in doctree.findall(nodes.Text) if t == ' -- ']:  # Sphinx's own
            text.parent.replace(text, nodes.Text(': '))

    app.connect('source-read', fill)
    app.connect('doctree-read', dash)
    app.connect('autodoc-process-signature', plain)
