"""The look of every figure: colours, axes, and how it becomes a file."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pneumojax.drawing.overlay import write_png

# Okabe and Ito's colours (2008), which people with any colour blindness can tell apart.
BLUE, ORANGE, GREEN = '#0072B2', '#E69F00', '#009E73'
INK, GREY, FAINT = '#1b1b1b', '#6b6b6b', '#9a9a9a'


def new_figure(size: tuple[float, float], title: str = '') -> Figure:
    """A figure apart from pyplot's global state.

    Args:
      size: width and height, inches at 120 dots per inch.
      title: heading.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=size, dpi=120, layout=layout, facecolor='white')
    if title:
        # A name may hold dollars, which are no formula.
        figure.suptitle(title, fontsize=13, fontweight='bold', parse_math=False)
    return figure


def style_axes(axes: Axes) -> None:
    """A light grid behind the data and no box around it."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color='#e6e6e6', linewidth=0.8)
    axes.set_axisbelow(True)


def missing(axes: Axes, words: str) -> None:
    """Makes a panel without data say why."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha='center', va='center', color=GREY)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG, see `overlay.write_png`."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
