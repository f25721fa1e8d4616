"""How well the notes tell pictures that are no frontal chest radiographs from those that are.

    python -m benchmarks.run plausibility [--root=DIR] [--others=DIR]

Draws phantoms and spoils them in 13 ways; with --root, the radiographs below that folder too. The
second table has every file of pydicom's, and those below --others, that is no chest by its tags.
`--template` prints the mean phantom, for `TEMPLATE` in pneumojax/prediction/plausibility.py.
"""

import argparse
import pathlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import matplotlib.cbook
import numpy as np
import pydicom.data
from matplotlib import image as matplotlib_image

from benchmarks.report import Report
from pneumojax.data.files import chest, inputs
from pneumojax.data.phantoms import phantom
from pneumojax.prediction import plausibility
from pneumojax.system.parallel import cores
from pneumojax.system.progress import log

SIDE = 512  # of the pictures that are spoilt
DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmarks.run plausibility`."""
    parser.add_argument('--root', help='folder of frontal chest radiographs')
    parser.add_argument('--others', help='folder of other DICOM files')
    parser.add_argument('--phantoms', type=int, default=100, help='default: %(default)s')
    parser.add_argument('--template', action='store_true', help='only print the mean phantom')


def measure(options: argparse.Namespace) -> Report:
    """AUROC and share of notes of each kind of picture."""
    if options.template:
        print(draw_template())
        return Report([])
    clean = {'phantoms': [drawn(i) for i in range(options.phantoms)]}
    if options.root:
        clean['radiographs'] = read(pathlib.Path(options.root).rglob('*'), 'chest')
    rows = []
    for kind, images in clean.items():
        sound = margins(images)
        rows.append({'of': kind, 'picture': 'as it is', **shares(sound)})
        for name, spoil in corruptions(np.random.default_rng(0)).items():
            found = margins([spoil(image) for image in images])
            rows.append(
                {'of': kind, 'picture': name, 'AUROC': auroc(sound, found), **shares(found)}
            )
    others = [p for p in pathlib.Path(pydicom.data.__file__).parent.rglob('*') if p.is_file()]
    others += list(pathlib.Path(options.others).rglob('*')) if options.others else []
    return Report(
        rows,
        [f'{len(images)} {kind}' for kind, images in clean.items()],
        {'Other images': other_images(others)},
    )


def drawn(number: int) -> np.ndarray:
    """A phantom, uint8 [SIDE, SIDE]."""
    return phantom.draw(np.random.default_rng([9, number]), SIDE, number % 4 == 0).image


def draw_template() -> str:
    """The mean of 32 small phantoms as ranks of its 16 x 16 pixels, 36 steps."""
    images = [phantom.draw(np.random.default_rng([1, i]), 96, False).image for i in range(32)]
    mean = np.mean([plausibility.ranks(image.astype(np.float32)) for image in images], axis=0)
    order = np.argsort(np.argsort(mean, axis=None, kind='stable'), kind='stable').reshape(16, 16)
    return '\n'.join(''.join(DIGITS[n * 36 // 256] for n in row) for row in order.tolist())


def corruptions(rng: np.random.Generator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What can happen to a picture, by name; each from uint8 [SIDE, SIDE] to the same."""

    def turned(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(image, rng.choice([1, 3])))

    def quarter(image: np.ndarray) -> np.ndarray:
        top, left = rng.integers(0, 2, 2) * SIDE // 2
        return cv2.resize(image[top:, left:][: SIDE // 2, : SIDE // 2], (SIDE, SIDE))

    def doubled(image: np.ndarray) -> np.ndarray:
        height = rng.choice([SIDE // 2, SIDE])
        pair = np.tile(cv2.resize(image, (SIDE // 2, height)), (1, 2))
        edge = (SIDE - height) // 2
        return cv2.copyMakeBorder(pair, edge, edge, 0, 0, cv2.BORDER_CONSTANT)

    def mosaic(image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image, (12, 12), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)

    def stretched(factor: float, offset: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda image: np.clip(np.float32(image) * factor + offset, 0, 255).astype(np.uint8)

    return {
        'blank': lambda image: np.full_like(image, rng.integers(256)),
        'inverted': lambda image: 255 - image,
        'turned by 90': turned,
        'turned by 180': lambda image: np.ascontiguousarray(image[::-1, ::-1]),
        'noise': lambda image: np.clip(image + rng.normal(0, 80, image.shape), 0, 255).astype(
            np.uint8
        ),
        'blurred': lambda image: cv2.GaussianBlur(image, (0, 0), 25),
        'a quarter of it': quarter,
        'twice beside itself': doubled,
        'saturated': stretched(3, 60),
        'nearly black': stretched(1, -170),
        'mosaic': mosaic,
        'text on a screen': lambda image: text(rng),
        'a photograph': lambda image: photograph(rng),
    }


def text(rng: np.random.Generator) -> np.ndarray:
    """Lines of letters, black on white or white on black."""
    paper, ink = (0, 255) if rng.random() < 0.5 else (255, 0)
    page, y = np.full((SIDE, SIDE), paper, np.uint8), 30
    while y < SIDE:
        line = ''.join(rng.choice(list('abcdefghij klmno pqrst 0123456789'), rng.integers(5, 40)))
        scale = float(rng.uniform(0.4, 0.8))
        cv2.putText(page, line, (10, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (ink,), 1, cv2.LINE_AA)
        y += int(rng.integers(18, 40))
    return page


def photograph(rng: np.random.Generator) -> np.ndarray:
    """A random part of the photograph that comes with Matplotlib, in grey."""
    path = matplotlib.cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)
    grey = cv2.cvtColor(np.ascontiguousarray(matplotlib_image.imread(path)), cv2.COLOR_RGB2GRAY)
    side = int(rng.integers(min(grey.shape) // 2, min(grey.shape)))
    top, left = (int(rng.integers(length - side)) for length in grey.shape)
    return cv2.resize(grey[top : top + side, left : left + side], (SIDE, SIDE))


def read(paths: Iterable[pathlib.Path], accept: chest.Accept) -> list[np.ndarray]:
    """The radiographs among these files, scaled to SIDE x SIDE."""

    def one(path: pathlib.Path) -> np.ndarray | None:
        try:
            image = inputs.read(path, accept=accept).image
        except (inputs.Skipped, inputs.Unreadable):
            return None
        return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    with ThreadPoolExecutor(cores()) as threads:
        found = threads.map(one, sorted(path for path in paths if path.is_file()))
        return [image for image in found if image is not None]


def other_images(paths: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
    """Grey DICOM images that are no chest by their tags, of any kind: one row for each."""
    from pneumojax.data.files import dicom, headers
    from pneumojax.system import limits

    rows, seen = [], set()
    for path in sorted(paths):
        try:
            with limits.BoundedFile(path) as file:
                header = headers.read(file)
            image = dicom.to_uint8(dicom.read(path))
        except Exception:  # not an image, or a damaged one: of no interest here
            continue
        small = cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA).tobytes()
        part = headers.text(header, 'BodyPartExamined')
        if min(image.shape) < plausibility.SIDE or small in seen:
            continue
        seen.add(small)
        found = plausibility.margin(plausibility.features(image))
        row = {'file': path.name, 'modality': headers.text(header, 'Modality'), 'part': part}
        rows.append(row | {'margin': found, 'note': 'yes' if found < 0 else 'no'})
    log.info('%d other images', len(rows))
    return rows


def margins(images: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [N], see `plausibility.margin`."""
    return np.array([plausibility.margin(plausibility.features(image)) for image in images])


def shares(found: np.ndarray) -> dict[str, Any]:
    """How many pictures there are, and how many of them get the note."""
    return {'pictures': len(found), 'with the note': float((found < 0).mean())}


def auroc(sound: np.ndarray, spoilt: np.ndarray) -> float:
    """The probability that a sound picture has the larger margin, equal ones counted by half."""
    gap = sound[:, None] - spoilt
    return float((gap > 0).mean() + (gap == 0).mean() / 2)
