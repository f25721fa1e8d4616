"""Pictures of masks on radiographs: one overlay, and a page of them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pneumojax.system import atomic

# Okabe and Ito's colours (2008), which people with any colour blindness tell apart, RGB.
PREDICTED = (230, 159, 0)  # orange
TRUE = (86, 180, 233)  # sky blue
FILL = 0.22  # opacity of the predicted area: the lung must stay visible through it

PAGE, INK, FAINT = '#ffffff', '#1b1b1b', '#6b6b6b'
SHIFT = 4  # bits after the point in OpenCV's sub-pixel coordinates
GAP = 14  # pixels between tiles of a contact sheet
POINTS_PER_PIXEL = 0.72  # at the 100 dots per inch that every figure here is drawn with


def overlay(image, predicted, true=None, *, side: int | None = None) -> np.ndarray:
    """Draws the predicted mask (orange, lightly filled) and the true outline (blue) on an image.

    Args:
      image: uint8 [H, W], grey.
      predicted: [H, W] any dtype, nonzero inside the predicted mask.
      true: [H, W] any dtype, nonzero inside the true mask; not drawn when None.
      side: pixels of the longer side of the picture; the image's own size when None. Lines are
        drawn at this size, so small images stay sharp on a page.

    Returns:
      uint8 RGB, [H, W, 3] or with `side` as its longer side.

    Raises:
      ValueError: the image is not uint8 [H, W] or a mask has another shape.
    """
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f'uint8 [H, W] image expected, got {image.dtype} {image.shape}')
    masks = [
        np.zeros_like(image) if mask is None else np.asarray(mask) for mask in (predicted, true)
    ]
    for mask in masks:
        if mask.shape != image.shape:
            raise ValueError(f'image {image.shape} and mask {mask.shape} differ')
    predicted, true = (np.where(mask != 0, np.uint8(255), np.uint8(0)) for mask in masks)

    picture = cv2.cvtColor(_resize(image, side), cv2.COLOR_GRAY2RGB)
    inside = _resize(predicted, side) > 127
    tint = picture[inside] * (1 - FILL) + np.array(PREDICTED) * FILL
    picture[inside] = tint.astype(np.uint8)
    line = max(1, round(max(picture.shape) / 512))
    scale = max(picture.shape) / max(image.shape)
    for mask, colour in ((true, TRUE), (predicted, PREDICTED)):
        # Outlined before the change of size, so that small regions do not vanish with it.
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        outlines = [_fixed_point((points + 0.5) * scale - 0.5) for points in outlines]
        cv2.polylines(picture, outlines, True, colour, line, cv2.LINE_AA, SHIFT)
        for points in outlines:
            if np.ptp(points, axis=0).max() < 2 * line << SHIFT:  # a speck: polylines draws nothing
                centre, radius = _fixed_point(points.mean(axis=0)[0] / 2**SHIFT), line << SHIFT
                cv2.circle(picture, centre.tolist(), radius, colour, -1, cv2.LINE_AA, SHIFT)
    return picture


def panel(image, predicted, true=None, *, side: int = 320) -> np.ndarray:
    """The bare image beside its overlay: a tile of a contact sheet.

    Args:
      image: uint8 [H, W], grey.
      predicted: [H, W], nonzero inside the predicted mask.
      true: [H, W], nonzero inside the true mask; not drawn when None.
      side: pixels of the longer side of each of the two.

    Returns:
      uint8 RGB [h, 2 * w + 2, 3].
    """
    bare = cv2.cvtColor(_resize(np.asarray(image), side), cv2.COLOR_GRAY2RGB)
    drawn = overlay(image, predicted, true, side=side)
    return np.hstack([bare, np.full((len(bare), 2, 3), 255, np.uint8), drawn])


def caption(
    image_id: str, dice: float | None = None, probability: float | None = None
) -> tuple[str, str]:
    """What stands under a tile: the end of the ImageId, and the scores.

    SIIM's ImageIds share their first 50 characters; the last part tells them apart.

    Args:
      image_id: of the image.
      dice, probability: its scores; left out when None.

    Returns:
      (left text, right text), see `contact_sheet`.
    """
    name = image_id if len(image_id) <= 24 else '…' + image_id[-22:]
    scores = [] if dice is None else [f'Dice {dice:.2f}']
    scores += [] if probability is None else [f'p = {probability:.2f}']
    return name, '    '.join(scores)


def contact_sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str | tuple[str, str]],
    columns: int,
    *,
    title: str = '',
    true_drawn: bool = True,
) -> np.ndarray:
    """A page of pictures with captions, a title and a legend.

    Args:
      tiles: uint8 RGB [h, w, 3] each, see `panel`; smaller ones are centred in the largest's space.
      captions: one per tile: a text for the left, or (left, right), see `caption`.
      columns: tiles side by side.
      title: heading of the page.
      true_drawn: whether the legend names the true outline.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      ValueError: no tiles, or not one caption for each.
    """
    # Late: prediction draws no page, and starts without matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not len(tiles) or len(tiles) != len(captions):
        raise ValueError(f'{len(tiles)} tiles and {len(captions)} captions')
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    high, wide = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    text = 24  # pixels under each tile
    head = 52
    width = columns * (wide + GAP) + GAP
    height = head + rows * (high + text + GAP)
    page = np.full((height, width, 3), 255, np.uint8)

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor='none')
    canvas = FigureCanvasAgg(figure)

    def write(x, y, content, size=11, **style):
        style = {'color': INK, 'va': 'center'} | style
        size *= POINTS_PER_PIXEL
        drawn = figure.text(x / width, 1 - y / height, content, size=size, **style)
        return drawn.get_window_extent(canvas.get_renderer()).width

    for i, (tile, words) in enumerate(zip(tiles, captions, strict=True)):
        left = GAP + i % columns * (wide + GAP)
        top = head + i // columns * (high + text + GAP)
        y, x = top + (high - tile.shape[0]) // 2, left + (wide - tile.shape[1]) // 2
        page[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        name, scores = (words, '') if isinstance(words, str) else words
        write(left + 1, top + high + text / 2, name, color=FAINT)
        write(left + wide - 1, top + high + text / 2, scores, ha='right')

    write(GAP, head / 2, title, size=17, weight='bold')
    entries = [('predicted', PREDICTED)] + [('true', TRUE)] * true_drawn
    right = width - GAP
    for label, colour in reversed(entries):
        right -= write(right, head / 2, label, ha='right') + 18
        _swatch(figure, right, head / 2, colour, width, height)
        right -= 16

    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())
    alpha = drawn[..., 3:].astype(np.float32) / 255
    return (page * (1 - alpha) + drawn[..., :3] * alpha).round().astype(np.uint8)


def write_png(path, rgb) -> None:
    """Writes an RGB or grey picture; the file appears whole or not at all.

    Args:
      path: of the file; its folder is made.
      rgb: uint8 [H, W, 3] RGB or [H, W] grey.
    """
    path = Path(path)
    rgb = np.asarray(rgb)
    picture = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
    done, encoded = cv2.imencode('.png', picture)
    if not done:
        raise ValueError(f'{path}: {rgb.dtype} {rgb.shape} cannot be written as PNG')
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, encoded.tobytes())


def _resize(image, side):
    height, width = image.shape
    if side is None or side == max(height, width):
        return image
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _fixed_point(points):
    return np.round(points * 2**SHIFT).astype(np.int32)


def _swatch(figure, x, y, colour, width, height):
    from matplotlib.patches import Rectangle

    box = Rectangle(
        (x / width, 1 - (y + 5) / height),
        12 / width,
        10 / height,
        transform=figure.transFigure,
        facecolor=tuple(c / 255 for c in colour),
        edgecolor='none',
    )
    figure.add_artist(box)
