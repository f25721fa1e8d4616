"""The pages' pictures, from the demo's second stage: drawn radiographs, no patient's.

    python -m pneumojax.main --config=configs/demo.py
    python -m docs.draw_pictures runs/demo/stage2

The contact sheet's tiles stand in a grid whose measures are `pneumojax.drawing.contact_sheet`'s.
"""

import csv
import pathlib
import shutil
import sys
import tempfile

import numpy as np
from PIL import Image

from pneumojax.data.datasets import siim
from pneumojax.data.files import dicom
from pneumojax.drawing.contact_sheet import GAP, HEAD, TEXT
from pneumojax.prediction.outputs import Options
from pneumojax.prediction.predict import predict
from pneumojax.runs.run import Run

FOLDER = pathlib.Path(__file__).parent / 'pictures'
TILE = (320, 642)  # of the contact sheet, pixels
CHOSEN = ((0, 2), (1, 1), (2, 0), (3, 0))  # rows: best, middle, worst positives, negatives
GREYS, COLOURS = 56, 120  # of a picture's palette


def demo(sheet: np.ndarray) -> np.ndarray:
    """Four tiles of a contact sheet, with their captions, two by two; uint8 RGB."""
    high, wide = TILE[0] + TEXT + GAP, TILE[1] + GAP
    tiles = [
        sheet[HEAD + row * high :, GAP + column * wide :][: TILE[0] + TEXT, : TILE[1]]
        for row, column in CHOSEN
    ]
    between = np.full((TILE[0] + TEXT, GAP, 3), 255, np.uint8)
    rows = [np.hstack([left, between, right]) for left, right in (tiles[:2], tiles[2:])]
    return np.vstack(rows)


def why_positive(run: Run) -> np.ndarray:
    """A held-out positive of middling Dice: as read, its overlay, its heat map; uint8 RGB."""
    with open(run / 'per_image.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if int(row['true_px'])]
    rows.sort(key=lambda row: float(row['dice']))
    image_id = rows[2 * len(rows) // 3]['ImageId']
    examples = siim.find(run.config().data.root).examples
    (path,) = (example.path for example in examples if example.image_id == image_id)
    with tempfile.TemporaryDirectory() as folder:
        source, output = pathlib.Path(folder, 'in'), pathlib.Path(folder, 'out')
        source.mkdir()
        shutil.copy(path, source)
        predict([run], source, output, Options(seg='none', report=False, heatmap=True))
        pictures = [
            Image.open(output / kind / f'{image_id}.png') for kind in ('overlays', 'heatmaps')
        ]
        pictures = [np.asarray(picture.convert('RGB')) for picture in pictures]
    image = dicom.to_uint8(dicom.read(path))
    between = np.full((len(image), 6, 3), 255, np.uint8)
    return np.hstack([np.dstack([image] * 3), between, pictures[0], between, pictures[1]])


def palette(image: Image.Image) -> Image.Image:
    """Even greys and the picture's own colours, which are few: a common palette loses them."""
    pixels = np.asarray(image).reshape(-1, 3)
    coloured = pixels[np.ptp(pixels.astype(int), axis=1) > 24]
    colours = Image.fromarray(coloured[None]).quantize(COLOURS, Image.Quantize.MEDIANCUT)
    greys = np.linspace(0, 255, GREYS).round().astype(int).repeat(3).tolist()
    result = Image.new('P', (1, 1))
    result.putpalette(greys + (colours.getpalette() or [])[: 3 * COLOURS])
    return result


def write(name: str, picture: np.ndarray, width: int) -> None:
    """Writes a PNG of few colours, `width` pixels wide."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    size = width, round(width * image.height / image.width)
    image = image.resize(size, Image.Resampling.LANCZOS)
    image = image.quantize(palette=palette(image), dither=Image.Dither.NONE)
    image.save(FOLDER / name, optimize=True)
    print(f'{FOLDER / name}: {(FOLDER / name).stat().st_size / 1024:.0f} KiB')


if __name__ == '__main__':
    finished = Run(sys.argv[1])
    write('demo.png', demo(np.asarray(Image.open(finished / 'contact_sheet.png'))), 860)
    write('why_positive.png', why_positive(finished), 860)
