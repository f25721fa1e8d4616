"""A page of radiographs beside their masks, with captions and a legend."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pneumojax.drawing.figures import GREY, INK
from pneumojax.drawing.overlay import PREDICTED, TRUE, overlay, resize

GAP, TEXT, HEAD = 14, 24, 52  # pixels between tiles, for the caption under each, and for the title
_DPI = 100
_POINTS = 72 / _DPI  # points in a pixel


def panel(
    image: np.ndarray, predicted: np.ndarray, true: np.ndarray, *, side: int = 320
) -> np.ndarray:
    """The bare image beside its overlay: a tile of a contact sheet.

    Args:
      image: uint8 [H, W], grey.
      predicted: [H, W], nonzero inside the predicted mask.
      true: [H, W], nonzero inside the true mask.
      side: pixels of the longer side of each of the two.

    Returns:
      uint8 RGB [h, 2 * w + 2, 3].
    """
    bare = cv2.cvtColor(resize(image, side), cv2.COLOR_GRAY2RGB)
    drawn = overlay(image, predicted, true, side=side)
    return np.hstack([bare, np.full((len(bare), 2, 3), 255, np.uint8), drawn])


def caption(image_id: str, dice: float, score: float) -> tuple[str, str]:
    """The caption of a tile, left and right: the end of the ImageId, and the scores.

    SIIM's ImageIds share their first 50 characters; the last ones tell them apart.
    """
    name = image_id if len(image_id) <= 24 else '…' + image_id[-22:]
    return name, f'Dice {dice:.2f}    score {score:.2f}'


def contact_sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[tuple[str, str]],
    columns: int,
    title: str = '',
) -> np.ndarray:
    """A page of pictures with captions, a title and a legend.

    Args:
      tiles: uint8 RGB [h, w, 3] each, see `panel`; smaller ones are centred in the largest's space.
      captions: one per tile: (left, right), see `caption`.
      columns: tiles side by side.
      title: heading of the page.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      ValueError: there are no tiles, or not one caption for each.
    """
    if not len(tiles) or len(tiles) != len(captions):
        raise ValueError(f'{len(tiles)} tiles and {len(captions)} captions')
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    high, wide = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    page = np.full(
        (HEAD + rows * (high + TEXT + GAP), columns * (wide + GAP) + GAP, 3), 255, np.uint8
    )
    writing = _Writing(page.shape[0], page.shape[1])
    for i, (tile, (name, scores)) in enumerate(zip(tiles, captions, strict=True)):
        left = GAP + i % columns * (wide + GAP)
        top = HEAD + i // columns * (high + TEXT + GAP)
        y, x = top + (high - tile.shape[0]) // 2, left + (wide - tile.shape[1]) // 2
        page[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        writing.text(left + 1, top + high + TEXT / 2, name, color=GREY)
        writing.text(left + wide - 1, top + high + TEXT / 2, scores, ha='right')
    writing.text(GAP, HEAD / 2, title, size=17, weight='bold')
    right = float(page.shape[1] - GAP)
    for label, colour in (('true', TRUE), ('predicted', PREDICTED)):
        right -= writing.text(right, HEAD / 2, label, ha='right') + 18
        writing.swatch(right, HEAD / 2, colour)
        right -= 16
    return writing.over(page)


class _Writing:
    """Text and coloured boxes to lay over a picture; x and y are pixels from its top left."""

    def __init__(self, height: int, width: int):
        self._height, self._width = height, width
        size = width / _DPI, height / _DPI
        self._figure = Figure(figsize=size, dpi=_DPI, facecolor='none')
        self._canvas = FigureCanvasAgg(self._figure)

    def text(self, x: float, y: float, content: str, size: float = 11, **given: Any) -> float:
        """Writes text, `size` pixels high, and returns its width."""
        style: dict[str, Any] = {'color': INK, 'va': 'center', 'size': size * _POINTS, **given}
        style['parse_math'] = False  # a name may hold dollars
        drawn = self._figure.text(x / self._width, 1 - y / self._height, content, **style)
        return drawn.get_window_extent(self._canvas.get_renderer()).width

    def swatch(self, x: float, y: float, colour: tuple[int, int, int]) -> None:
        """Draws a box of 12 x 10 pixels to the right of x, at the height of a line of text."""
        self._figure.add_artist(Rectangle(
            (x / self._width, 1 - (y + 5) / self._height), 12 / self._width, 10 / self._height,
            transform=self._figure.transFigure, facecolor=[c / 255 for c in colour],
            edgecolor='none',
        ))  # fmt: skip

    def over(self, page: np.ndarray) -> np.ndarray:
        """The page, uint8 RGB, with the writing on it."""
        self._canvas.draw()
        drawn = np.asarray(self._canvas.buffer_rgba())
        alpha = drawn[..., 3:].astype(np.float32) / 255
        return (page * (1 - alpha) + drawn[..., :3] * alpha).round().astype(np.uint8)
