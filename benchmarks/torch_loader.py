"""What feeding PyTorch takes: a DataLoader whose workers read, decode and augment.

albumentations' releases since 2.0 ask for opencv-python-headless beside the opencv-python here:
`pip install --no-deps albumentations albucore`, then what its import names.
"""

import albumentations
import cv2
import numpy as np
import torch

from pneumojax.data import siim

cv2.setNumThreads(0)  # as DataLoader users are told: its workers share the cores


def transforms(size: int) -> albumentations.Compose:
    """The list of `configs/base.py` in albumentations' terms."""
    a = albumentations
    return a.Compose([
        a.HorizontalFlip(p=0.5),
        a.OneOf([
            a.RandomBrightnessContrast(brightness_limit=0.0, contrast_limit=0.2, p=1),
            a.RandomGamma(gamma_limit=(80, 120), p=1),
            a.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.0, p=1),
        ], p=0.3),
        a.OneOf([
            a.ElasticTransform(alpha=120, sigma=6, p=1),
            a.GridDistortion(num_steps=5, distort_limit=0.3, p=1),
            a.OpticalDistortion(distort_limit=0.5, p=1),
        ], p=0.3),
        a.ShiftScaleRotate(shift_limit=0.2, scale_limit=0.2, rotate_limit=20, p=0.5),
        a.RandomSizedCrop((int(size * 412 / 512), size), (size, size), p=0.25),
    ])  # fmt: skip


class FromFiles(torch.utils.data.Dataset):
    """Decodes and shrinks every image every time it is asked for."""

    def __init__(self, examples, size: int, transform=None):
        self.examples, self.size, self.transform = examples, size, transform

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        image, mask = siim.load(self.examples[index])
        size = (self.size, self.size)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        return _tensors(image, mask, self.transform)


class FromRecords(torch.utils.data.Dataset):
    """Reads the records that this project trains from, `repeats` times over."""

    def __init__(self, cache, repeats: int, transform=None):
        self.cache, self.repeats, self.transform = cache, repeats, transform

    def __len__(self):
        return len(self.cache) * self.repeats

    def __getitem__(self, index):
        image, mask = self.cache[index % len(self.cache)]
        return _tensors(image, mask, self.transform)


def _tensors(image: np.ndarray, mask: np.ndarray, transform):
    if transform is not None:
        changed = transform(image=np.ascontiguousarray(image), mask=mask)
        image, mask = changed['image'], changed['mask']
    return torch.tensor(image[None]), torch.tensor(mask[None])


def data_sets(examples, cache, size: int):
    """(what it does, the data set, images an epoch of it) for three ways of feeding."""
    transform = transforms(size)
    repeats = max(1, 1000 // len(cache))
    return (
        ('from DICOM, albumentations', FromFiles(examples, size, transform), len(examples)),
        (
            'from records, albumentations',
            FromRecords(cache, repeats, transform),
            repeats * len(cache),
        ),
        ('from records, nothing else', FromRecords(cache, repeats), repeats * len(cache)),
    )


def make_loader(dataset, batch_size: int, workers: int) -> torch.utils.data.DataLoader:
    """Shuffled batches from worker processes."""
    return torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=workers, multiprocessing_context='forkserver'
    )
