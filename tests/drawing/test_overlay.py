"""What must be seen in a picture, read back from its pixels."""

import cv2
import numpy as np
import pytest

from pneumojax.drawing import overlay

GREY = np.full((256, 256), 90, np.uint8)


def disc(size, x, y, radius):
    return cv2.circle(np.zeros((size, size), np.uint8), (x, y), radius, 1, -1)


def coloured(picture, colour, tolerance=40):
    """bool [H, W]: pixels near a colour."""
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(axis=-1)


def test_outlines_run_along_the_masks_edges():
    predicted, true = disc(256, 80, 128, 40), disc(256, 180, 128, 40)
    picture = overlay.overlay(GREY, predicted, true * 255)
    assert picture.dtype == np.uint8
    assert picture.shape == (256, 256, 3)
    for mask, colour in ((predicted, overlay.PREDICTED), (true, overlay.TRUE)):
        line = coloured(picture, colour)
        edge = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
        far = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 5)
        assert far[line].max() <= 2
        gap = cv2.distanceTransform(np.uint8(~line), cv2.DIST_L2, 5)
        assert gap[edge > 0].max() <= 2


def test_only_the_prediction_is_filled_and_the_image_shows_through():
    image = np.tile(np.linspace(40, 200, 256).astype(np.uint8), (256, 1))
    predicted, true = disc(256, 80, 128, 40), disc(256, 180, 128, 40)
    picture = overlay.overlay(image, predicted, true)
    inner = disc(256, 180, 128, 30) > 0  # inside the true mask: as it was
    np.testing.assert_array_equal(picture[inner], np.repeat(image[inner][:, None], 3, axis=1))
    row = picture[128, 50:110].astype(int)  # inside the prediction: tinted, and still a ramp
    assert (row[:, 0] > row[:, 2]).all()
    assert np.corrcoef(row.sum(axis=1), image[128, 50:110])[0, 1] > 0.99


def test_empty_masks_leave_the_image_as_it_is():
    picture = overlay.overlay(GREY, np.zeros_like(GREY), np.zeros_like(GREY))
    np.testing.assert_array_equal(picture, np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(picture, overlay.overlay(GREY, np.zeros_like(GREY)))


@pytest.mark.parametrize(('size', 'side'), [(1024, 128), (64, 512)])
def test_masks_keep_their_place_and_a_single_pixel_is_seen_at_every_size(size, side):
    mask = np.zeros((size, size // 2), np.uint8)
    mask[size // 4, size // 8] = 1
    picture = overlay.overlay(np.zeros_like(mask), mask, side=side)
    assert picture.shape == (side, side // 2, 3)
    seen = np.argwhere(picture.max(axis=-1) > 60)
    assert len(seen)
    expected = (np.array([size // 4, size // 8]) + 0.5) * side / size - 0.5
    assert np.abs(seen.mean(axis=0) - expected).max() <= 1


def test_lines_grow_with_the_picture():
    share = [
        coloured(
            overlay.overlay(np.zeros((s, s), np.uint8), disc(s, s // 2, s // 2, s // 4)),
            overlay.PREDICTED,
        ).mean()
        for s in (512, 1536)
    ]
    assert 0.7 < share[1] / share[0] < 2.5  # a third of it if the line stayed a pixel wide


def test_colours_differ_for_the_colour_blind():
    # Deuteranopia after Vienot, Brettel and Mollon (1999), in linear RGB.
    to_linear = lambda c: (np.array(c) / 255) ** 2.2  # noqa: E731
    blind = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    a, b = (blind @ to_linear(colour) for colour in (overlay.PREDICTED, overlay.TRUE))
    assert np.abs(a - b).max() > 0.5


@pytest.mark.parametrize(
    ('image', 'mask'),
    [
        (GREY.astype(np.uint16), GREY),
        (np.repeat(GREY[..., None], 3, axis=2), GREY),
        (GREY, GREY[:128]),
    ],
)
def test_other_images_and_masks_are_refused(image, mask):
    with pytest.raises(ValueError, match=r'expected|differ'):
        overlay.overlay(image, mask)


def test_png_comes_back_as_it_was_in_rgb_and_replaces_the_old_one(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (10, 12, 3), np.uint8)
    path = tmp_path / 'new folder' / 'picture.png'
    for rgb in (255 - picture, picture):
        overlay.write_png(path, rgb)
    read = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(read, picture)
    assert [p.name for p in path.parent.iterdir()] == ['picture.png']


def test_interrupted_writing_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / 'picture.png'
    overlay.write_png(path, GREY)
    before = path.read_bytes()

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr('pathlib.Path.replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        overlay.write_png(path, 255 - GREY)
    assert path.read_bytes() == before
