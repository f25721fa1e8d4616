"""What must be seen on a contact sheet, read back from its pixels."""

import cv2
import numpy as np
import pytest

from pneumojax.drawing.contact_sheet import caption, contact_sheet, panel
from pneumojax.drawing.overlay import overlay


def test_panel_has_the_bare_image_on_the_left():
    image = np.random.default_rng(0).integers(0, 255, (200, 160), np.uint8)
    mask = np.zeros_like(image)
    mask[50:90, 50:90] = 1
    tile = panel(image, mask, 0 * mask, side=200)
    assert tile.shape == (200, 322, 3)
    np.testing.assert_array_equal(tile[:, :160, 0], image)
    np.testing.assert_array_equal(tile[:, 162:], overlay(image, mask, 0 * mask))


def test_caption_keeps_what_tells_images_apart():
    ids = [f'1.2.276.0.7230010.3.1.4.8323329.{n}.1517875163.537053' for n in (1000, 1001)]
    names = {caption(image_id, 0, 0)[0] for image_id in ids}
    assert len(names) == 2
    assert caption('ID_0011fe81e', 0.5, 0.25) == ('ID_0011fe81e', 'Dice 0.50    score 0.25')


def test_contact_sheet_holds_every_tile_unchanged_and_writes_below_it():
    rng = np.random.default_rng(1)
    tiles = [rng.integers(0, 255, (60, 90, 3), np.uint8) for _ in range(5)]
    tiles.append(rng.integers(0, 255, (40, 90, 3), np.uint8))
    page = contact_sheet(tiles, [('a', '')] * 6, columns=4, title='Title')
    blank = contact_sheet(tiles, [('', '')] * 6, columns=4)
    assert page.shape == blank.shape
    for i, tile in enumerate(tiles):
        score = cv2.matchTemplate(page, tile, cv2.TM_SQDIFF)
        assert score.min() == pytest.approx(0, abs=tile.size * 0.01)
        _, _, (x, y), _ = cv2.minMaxLoc(score)
        assert (y > 100) == (i >= 4)  # the second row
        below = page[y + len(tile) : y + len(tile) + 30, x : x + 90]
        assert below.min() < 128  # the caption
    assert (page[:40] != blank[:40]).any()  # the title


def test_contact_sheet_refuses_tiles_without_captions():
    with pytest.raises(ValueError, match='2 tiles and 1 captions'):
        contact_sheet([np.zeros((4, 4, 3), np.uint8)] * 2, [('a', '')], 2)
    with pytest.raises(ValueError, match='0 tiles'):
        contact_sheet([], [], 2)
