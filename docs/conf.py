"""How the documentation's site is built.

    python -m sphinx -W -b html docs build/docs

The site fetches nothing from elsewhere: pages and search work from the disk.
"""

project = 'pneumojax'
author = 'the pneumojax authors'
copyright = author
extensions = ['myst_parser']
exclude_patterns = ['_build']
source_suffix = {'.md': 'markdown'}

smartquotes = False  # they would turn --workdir into a dash and a word

html_theme = 'furo'
html_title = 'pneumojax'
html_static_path = []
html_show_sphinx = html_copyright = False
# For summaries of its results the search fetches pages, which browsers forbid for local files.
html_show_search_summary = False
html_copy_source = False
html_theme_options = {  # the same colours as in the program's reports
    'light_css_variables': {'color-brand-primary': '#8a5c00', 'color-brand-content': '#8a5c00'},
    'dark_css_variables': {'color-brand-primary': '#f0b43c', 'color-brand-content': '#f0b43c'},
}

myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
