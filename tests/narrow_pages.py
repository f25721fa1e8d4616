"""What a page looks like on a phone: measured in headless Chromium."""

PHONE, DESK = 390, 1280  # pixels

# Words that are broken over lines though the page is wide enough for them, and the narrowest cell.
_MEASURE = """
const broken = [], widths = [];
for (const cell of document.querySelectorAll('th, td')) {
  if (!cell.offsetParent || !cell.innerText.trim()) continue;
  widths.push(cell.getBoundingClientRect().width);
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      const lines = new Set(Array.from(range.getClientRects(), box => Math.round(box.top)));
      if (lines.size > 1 && word[0].length < 25) broken.push(word[0]);
    }
  }
}
return {broken, narrowest: Math.min(...widths), width: document.documentElement.scrollWidth,
  view: window.innerWidth};
"""


def show(browser, path, width, screenshot=None):
    """Opens a page in a window of this width; what was measured there.

    Returns:
      'broken': words that are on more than one line; 'narrowest': of the cells with text, pixels;
      'width': of the page with all that has to be scrolled to; 'view': of the window.
    """
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': 844, 'deviceScaleFactor': 1, 'mobile': width == PHONE},
    )
    browser.get(path.as_uri())
    measured = browser.execute_script(_MEASURE)
    if screenshot:
        browser.save_screenshot(str(screenshot))
    return measured


def assert_readable(measured, width):
    """No page that scrolls sideways, no column of single letters."""
    assert measured['width'] <= measured['view'] == width, measured
    assert measured['broken'] == []
    assert measured['narrowest'] > 40
