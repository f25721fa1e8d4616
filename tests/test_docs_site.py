"""The documentation's site builds, and asks for nothing from elsewhere."""

import json
import os
import pathlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.waiting import wait_for

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    for module in ('sphinx', 'furo', 'myst_parser'):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -e '.[docs]'")
    output = tmp_path_factory.mktemp('site')
    result = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-b', 'html', 'docs', output],
        cwd=REPOSITORY, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, '')
    return output


class Requests(HTMLParser):
    """Addresses that a browser fetches when it opens a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ('script', 'img', 'iframe', 'source', 'object', 'embed'):
            self.found += [attrs[key] for key in ('src', 'data') if attrs.get(key)]
        if tag == 'link' and attrs.get('rel') not in (
            'index',
            'search',
            'next',
            'prev',
            'canonical',
        ):
            self.found.append(attrs['href'])


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > 15
    for page in pages:
        for address in Requests(page.read_text()).found:
            assert not re.match(r'[a-z]+:|//', address), (page, address)
            assert (page.parent / address.split('?')[0]).is_file(), (page, address)
    for style in site.rglob('*.css'):
        addresses = re.findall(r'(?:@import|url\()\s*["\']?([^"\')]+)', style.read_text())
        assert not [a for a in addresses if re.match(r'https?:|//', a)], style
    config_page = (site / 'reference' / 'config.html').read_text()
    assert 'optimizer.clip_norm' in config_page
    assert '<td><p>largest global norm of the gradient' in config_page
    index = (site / 'searchindex.js').read_text()
    assert 'pneumothorax' in index


@pytest.mark.slow
def test_a_browser_finds_a_key_from_the_disk(site, browser):
    """Search works, nothing complains, nothing but the site's own files is asked for."""
    for page in ('index', 'explanation/architecture', 'search'):
        address = f'{(site / page).as_uri()}.html' + '?q=clip_norm' * (page == 'search')
        browser.get(address)
    wait_for(lambda: browser.find_elements('css selector', '#search-results li a'))
    found = browser.find_elements('css selector', '#search-results li a')
    assert 'Config keys' in {link.text for link in found}
    assert browser.get_log('browser') == []
    messages = [json.loads(e['message'])['message'] for e in browser.get_log('performance')]
    asked = {
        m['params']['request']['url']
        for m in messages
        if m['method'] == 'Network.requestWillBeSent'
    }
    assert len(asked) > 10
    assert {a for a in asked if not a.startswith((site.as_uri(), 'data:', 'chrome'))} == set()
