"""The authors' augmentation on the CPU, as they ran it: by albumentations where it is installed.

Without it: the same flip, change of tone, shift-scale-rotate and crop by OpenCV, but no distortion.
Both read `config.augment`; lengths in pixels at 512 follow the image size, as ours do.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

BORDERS = {'constant': cv2.BORDER_CONSTANT, 'reflect': cv2.BORDER_REFLECT_101}


class Augment(NamedTuple):
    """uint8 image and mask [S, S] -> the same, and what does it."""

    call: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    name: str


def make_augment(config) -> Augment:
    """The augmentation of `config.augment`, drawn from `config.seed`."""
    os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')  # else it asks the network
    try:
        import albumentations
    except ImportError:
        rng = np.random.default_rng([config.seed, 3])
        return Augment(
            lambda image, mask: by_hand(rng, image, mask, config.augment),
            'OpenCV by hand, without distortions',
        )
    compose = _albumentations(albumentations, config)

    def call(image, mask):
        # As one channel: some of its operations want an axis for it.
        done = compose(image=image[..., None], mask=mask)
        return done['image'].reshape(image.shape), done['mask'].reshape(mask.shape)

    return Augment(call, f'albumentations {albumentations.__version__}')


def _albumentations(A, config):
    aug, size = config.augment, config.image_size
    scale, black = size / 512, {'border_mode': cv2.BORDER_CONSTANT}
    sigma = max(1.0, aug.elastic_sigma * scale)  # it takes no smaller one
    # Smoothed noise is as small as its sigma is large; so displacements shrink with the image.
    alpha = aug.elastic_alpha / max(aug.elastic_sigma, 1e-6) * sigma * scale
    return A.Compose(
        [
            A.HorizontalFlip(p=aug.flip),
            A.VerticalFlip(p=aug.vertical_flip),
            A.OneOf(
                [
                    A.RandomBrightnessContrast(0.0, aug.contrast, p=1),
                    A.RandomGamma(tuple(aug.gamma), p=1),
                    A.RandomBrightnessContrast(aug.brightness, 0.0, p=1),
                ],
                p=aug.intensity,
            ),
            A.OneOf(
                [
                    A.ElasticTransform(
                        alpha, sigma, noise_distribution='uniform', p=1, **black
                    ),
                    A.GridDistortion(aug.grid_steps, aug.grid_distort, p=1, **black),
                    A.OpticalDistortion(aug.optical_distort, p=1, **black),
                ],
                p=aug.warp,
            ),
            A.Affine(
                scale=(1 - aug.scale, 1 + aug.scale),
                translate_percent=(-aug.shift, aug.shift),
                rotate=(-aug.rotate, aug.rotate),
                p=aug.affine, border_mode=BORDERS[aug.border],
            ),
            A.RandomSizedCrop((round(aug.crop_min * size), size), (size, size), p=aug.crop),
        ],
        seed=config.seed,
    )  # fmt: skip


def by_hand(rng: np.random.Generator, image, mask, aug):
    """Flip, one of contrast, gamma and brightness, then shift-scale-rotate and crop in one warp."""
    size = image.shape[0]
    if rng.random() < aug.intensity:
        grey = image.astype(np.float32) / 255
        kind = rng.integers(3)
        if kind == 0:
            factor = 1 + rng.uniform(-aug.contrast, aug.contrast)
            grey = (grey - grey.mean()) * factor + grey.mean()
        elif kind == 1:
            grey = grey ** (rng.uniform(*aug.gamma) / 100)
        else:
            grey = grey + rng.uniform(-aug.brightness, aug.brightness)
        image = (np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < aug.flip:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if rng.random() < aug.vertical_flip:
        image, mask = image[::-1], mask[::-1]
    matrix = np.eye(3)
    if rng.random() < aug.affine:
        angle = rng.uniform(-aug.rotate, aug.rotate)
        zoom = 1 + rng.uniform(-aug.scale, aug.scale)
        matrix[:2] = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, zoom)
        matrix[:2, 2] += rng.uniform(-aug.shift, aug.shift, 2) * size
    if rng.random() < aug.crop:
        side = rng.uniform(aug.crop_min, 1) * size
        corner, zoom = rng.uniform(0, size - side, 2), size / side
        matrix = np.array(
            [[zoom, 0, -zoom * corner[0]], [0, zoom, -zoom * corner[1]], [0, 0, 1]]
        ) @ (matrix)
    if (matrix == np.eye(3)).all():
        return image, mask
    border = {'borderMode': BORDERS[aug.border]}
    image, mask = (
        cv2.warpAffine(np.ascontiguousarray(x), matrix[:2], (size, size), flags=how, **border)
        for x, how in ((image, cv2.INTER_LINEAR), (mask, cv2.INTER_NEAREST))
    )
    return image, mask
