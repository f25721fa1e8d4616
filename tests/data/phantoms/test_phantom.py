"""Phantoms: the same bits from the same seed, SIIM's sizes, a real data set on the disk."""

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut, apply_windowing

from pneumojax.data.datasets import siim
from pneumojax.data.phantoms import drawing, phantom, shapes
from pneumojax.errors import UsageError

SIZE, COUNT, SEED, SHARE = 48, 40, 3, 0.3


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def anatomy(seed: tuple[int, ...], size: int) -> list[np.ndarray]:
    """The two cavities [size, size] of the phantom that this seed draws, filled by OpenCV."""
    source = rng(*seed)
    pose, fields = drawing.pose(source), []
    for lung in shapes.lungs(source):
        corners = (lung.outline @ pose[:, :2].T + pose[:, 2]) * size - 0.5
        field = np.zeros((size, size), np.uint8)
        cv2.fillPoly(field, [np.rint(corners).astype(np.int32)], 1)
        fields.append(field)
    return fields


# --- drawing


@pytest.mark.parametrize('positive', [True, False])
def test_one_seed_gives_one_picture_whatever_the_surroundings(positive):
    first = phantom.draw(rng(7), 160, positive)
    threads = cv2.getNumThreads()
    np.random.seed(1)
    cv2.setRNGSeed(5)
    cv2.setNumThreads(1 if threads > 1 else 4)
    try:
        second = phantom.draw(rng(7), 160, positive)
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert (phantom.draw(rng(8), 160, positive).image != first.image).mean() > 0.5


@pytest.mark.parametrize('size', [32, 33, 90, 257, 300])
def test_any_size_from_32_on(size):
    for positive in (True, False):
        image, mask = phantom.draw(rng(1), size, positive)
        assert image.shape == mask.shape == (size, size)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == ({0, 1} if positive else {0})
        assert image.min() < 30
        assert image.max() > 200


def test_the_smallest_pneumothorax_is_never_lost(monkeypatch):
    monkeypatch.setattr(shapes, 'pneumothorax_area', lambda _: 20 / 1024**2)
    for seed in range(6):
        assert phantom.draw(rng(seed), 32, True).mask.sum() >= 1


def test_a_picture_too_small_is_refused():
    with pytest.raises(ValueError, match='at least 32'):
        phantom.draw(rng(0), 31, True)


def test_one_seed_is_one_patient_at_any_size():
    for seed in range(4):
        small, large = (phantom.draw(rng(seed), size, True) for size in (256, 768))
        image = cv2.resize(large.image, (256, 256), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.image.ravel(), image.ravel())[0, 1] > 0.985
        mask = cv2.resize(large.mask * 255, (256, 256), interpolation=cv2.INTER_AREA) >= 128
        assert np.logical_xor(mask, small.mask).sum() <= 0.06 * mask.sum() + 4


def test_the_area_drawn_is_the_area_asked_for():
    for seed, area in enumerate((300, 2061, 9500, 32219, 60000)):
        source = rng(seed)
        lung = shapes.collapse(source, shapes.lungs(source)[seed % 2], area / 1024**2)
        corners = np.float32(shapes.crescent(lung)) * 1024
        assert cv2.contourArea(corners) == pytest.approx(area, rel=0.005)


def test_areas_before_drawing_have_siims_quantiles():
    source = rng(0)
    areas = [shapes.pneumothorax_area(source) * 1024**2 for _ in range(20_000)]
    expected = 2061, 9500, 32219
    np.testing.assert_allclose(np.quantile(areas, (0.1, 0.5, 0.9)), expected, rtol=0.05)
    assert max(areas) <= 81_000


@pytest.mark.slow
def test_drawn_masks_have_siims_quantiles(monkeypatch):
    def nothing(rng, film, pair, gap):
        return np.zeros(gap.shape, np.float32)

    monkeypatch.setattr(drawing, 'attenuation', nothing)  # masks alone, for speed
    areas = [phantom.draw(rng(2, i), 256, True).mask.sum() * 16 for i in range(200)]
    expected = np.array([2061, 9500, 32219])
    ratio = np.quantile(areas, (0.1, 0.5, 0.9)) / expected
    assert (ratio > 0.75).all(), ratio
    assert (ratio < 1.33).all(), ratio
    assert max(areas) < 85_000


def test_a_pneumothorax_lies_in_one_lung_and_is_darker_and_smoother_than_its_rest():
    size, darker, smoother = 256, [], []
    for seed in range(30):
        image, mask = phantom.draw(rng(seed), size, True)
        fields = anatomy((seed,), size)
        inside = [int((mask & field).sum()) for field in fields]
        assert max(inside) >= 0.93 * mask.sum() - 6  # the outline's pixels may fall either way
        assert min(inside) == 0
        lung = fields[int(np.argmax(inside))]
        edge = cv2.dilate(mask, np.ones((9, 9))) - mask
        gap = cv2.erode(mask, np.ones((7, 7))) > 0
        rest = (cv2.erode(lung, np.ones((9, 9))) > 0) & (mask == 0) & (edge == 0)
        if gap.sum() < 150:
            continue
        grey = np.float32(image)
        detail = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1))
        darker.append(np.median(grey[rest]) - np.median(grey[gap]))
        smoother.append(np.median(detail[rest]) / np.median(detail[gap]))  # ribs are few
    assert len(darker) >= 10
    assert np.mean(darker) > 15
    assert np.mean(np.array(darker) > 0) > 0.9
    assert np.mean(smoother) > 1.3


@pytest.mark.slow
def test_darkness_alone_does_not_tell_positives_from_negatives():
    darkest = {True: [], False: []}
    for positive, values in darkest.items():
        for seed in range(30):
            image = phantom.draw(rng(seed, positive), 64, positive).image
            lung = sum(anatomy((seed, positive), 64)) > 0
            values.append(np.quantile(image[lung], 0.05))
    positive, negative = (np.array(darkest[key]) for key in (True, False))
    auc = (positive[:, None] < negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert auc < 0.75


# --- the data set


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('phantoms') / 'set'
    arguments = {'num_images': COUNT, 'size': SIZE, 'seed': SEED, 'positive_share': SHARE}
    assert phantom.write_dataset(folder, **arguments) == folder.resolve()
    return folder


def by_number(root: Path) -> dict[int, pydicom.Dataset]:
    files = [pydicom.dcmread(path) for path in root.glob('dicom-images-train/*/*/*.dcm')]
    return {int(str(file.PatientName).split('^')[1]) - 1: file for file in files}


def rows(root: Path) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for name, runs in list(csv.reader(io.StringIO((root / 'train-rle.csv').read_text())))[1:]:
        table.setdefault(name, []).append(runs)
    return table


def mask_of(texts: list[str], size: int) -> np.ndarray:
    """Kaggle's code pixel by pixel: column-major, starts relative to the end of the run before."""
    mask = np.zeros((size, size), np.uint8)
    for text in texts:
        numbers, position = [int(word) for word in text.split()], 0
        if numbers == [-1]:
            continue
        for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
            position += gap
            for pixel in range(position, position + length):
                mask[pixel % size, pixel // size] = 1
            position += length
    return mask


def shown(file: pydicom.Dataset) -> tuple[str, np.ndarray]:
    """(kind of encoding, what a viewer shows [S, S] in 0 to 255) by way of pydicom."""
    if file.file_meta.TransferSyntaxUID == '1.2.840.10008.1.2.4.50':
        frame = next(generate_frames(file.PixelData, number_of_frames=1))
        pixels = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_UNCHANGED)
        if file.PhotometricInterpretation == 'MONOCHROME1':
            return 'MONOCHROME1', 255.0 - pixels
        return 'JPEG', np.float64(pixels)
    stored = np.frombuffer(file.PixelData, '<u2').reshape(file.Rows, file.Columns)
    assert stored.max() < 2**12
    values = apply_windowing(apply_modality_lut(stored, file), file)
    low = float(file.RescaleIntercept)
    return '12 bit', (values - low) * (255 / 4095)


def test_files_show_what_was_drawn(root):
    files, table = by_number(root), rows(root)
    assert sorted(files) == list(range(COUNT))
    kinds, several = [], 0
    for number, file in files.items():
        texts = table[file.SOPInstanceUID]
        positive = texts != [' -1']
        expected = phantom.draw(rng(SEED, number), SIZE, positive)
        kind, picture = shown(file)
        difference = np.abs(picture - expected.image)
        if kind == '12 bit':
            assert difference.max() < 0.01
        else:
            assert difference.max() <= 24  # JPEG of quality 95
            assert difference.mean() < 2.5
        np.testing.assert_array_equal(mask_of(texts, SIZE), expected.mask)
        kinds.append(kind)
        several += len(texts) > 1
    assert set(kinds) == {'JPEG', 'MONOCHROME1', '12 bit'}
    assert kinds.count('JPEG') > COUNT / 2
    assert several >= 1


def test_headers_are_as_in_real_files(root):
    files = by_number(root).values()
    for file in files:
        assert file.Modality in ('DX', 'CR')
        assert file.ViewPosition in ('PA', 'AP')
        assert file.PixelSpacing == file.ImagerPixelSpacing
        assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
        assert file.SOPInstanceUID.is_valid
        assert Path(file.filename).stem == file.SOPInstanceUID
        lossy = file.file_meta.TransferSyntaxUID == '1.2.840.10008.1.2.4.50'
        assert (file.get('LossyImageCompression') == '01') == lossy
    for key in ('PatientID', 'SOPInstanceUID', 'SeriesInstanceUID', 'StudyInstanceUID'):
        assert len({file[key].value for file in files}) == COUNT
    assert {file.Modality for file in files} == {'DX', 'CR'}


def test_tables_are_kaggles(root):
    lines = (root / 'train-rle.csv').read_text().splitlines()
    assert lines[0] == 'ImageId, EncodedPixels'
    assert all(line.split(',')[1].startswith(' ') for line in lines)
    assert sum(texts != [' -1'] for texts in rows(root).values()) == round(SHARE * COUNT)
    lines = (root / 'patients.csv').read_text().splitlines()
    assert lines[0] == 'ImageId,PatientId'
    images, patients = zip(*(line.split(',') for line in lines[1:]), strict=True)
    assert set(images) == set(rows(root))
    assert COUNT / 3 < len(set(patients)) < COUNT / 1.4
    found = siim.find(root, patients=str(root / 'patients.csv'))
    assert len(found.examples) == COUNT
    assert not found.images_without_row
    assert not found.rows_without_image


@pytest.mark.parametrize('share', [0.0, 0.22, 1 / 3, 0.5, 1.0])
def test_positives_are_counted_exactly(share):
    for number in (1, 2, 7, 100, 301):
        specs = phantom.make_specs(number, 0, share)
        assert sum(spec.positive for spec in specs) == round(share * number)
        assert specs == phantom.make_specs(400, 0, share)[:number]


def test_about_two_images_a_patient():
    specs = phantom.make_specs(12_047, 0, 0.22)
    assert 12_047 / len({spec.patient for spec in specs}) == pytest.approx(1.95, rel=0.03)


def test_files_depend_on_neither_workers_nor_the_rest(root, tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, 'cores', lambda: 1)
    phantom.write_dataset(tmp_path / 'a', num_images=6, size=SIZE, seed=SEED, positive_share=SHARE)
    few = {path.name: path for path in (tmp_path / 'a').rglob('*.dcm')}
    assert len(few) == 6
    many = {path.name: path for path in root.rglob('*.dcm')}
    for name, path in few.items():
        assert path.read_bytes() == many[name].read_bytes()
        assert path.relative_to(tmp_path / 'a') == many[name].relative_to(root)
    lines = (tmp_path / 'a' / 'train-rle.csv').read_text()
    assert (root / 'train-rle.csv').read_text().startswith(lines)


def test_the_same_again_is_left_as_it_is(root, monkeypatch):
    monkeypatch.setattr(phantom, 'draw', None)
    phantom.write_dataset(root, num_images=COUNT, size=SIZE, seed=SEED, positive_share=SHARE)


def test_an_interruption_leaves_nothing_that_passes_for_whole(tmp_path, monkeypatch):
    true_write, folder = phantom.write_image, tmp_path / 'set'

    def failing(root, spec, *rest):
        if spec.number == 3:
            raise KeyboardInterrupt
        return true_write(root, spec, *rest)

    monkeypatch.setattr(phantom, 'write_image', failing)
    with pytest.raises(KeyboardInterrupt):
        phantom.write_dataset(folder, num_images=5, size=32, seed=0)
    assert not folder.exists()
    monkeypatch.setattr(phantom, 'write_image', true_write)
    phantom.write_dataset(folder, num_images=5, size=32, seed=0)
    assert len(list(folder.rglob('*.dcm'))) == 5
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_other_peoples_files_are_refused_and_kept(root, tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='name a new or empty folder'):
        phantom.write_dataset(tmp_path, num_images=2, size=32, seed=0)
    with pytest.raises(UsageError, match='is a file'):
        phantom.write_dataset(tmp_path / 'mine.txt', num_images=2, size=32, seed=0)
    with pytest.raises(UsageError, match=r'phantoms\.json'):
        phantom.write_dataset(root, num_images=COUNT, size=SIZE, seed=SEED + 1)
    assert (tmp_path / 'mine.txt').read_text() == 'mine'
    phantom.write_dataset(tmp_path / 'empty', num_images=1, size=32, seed=0)
    assert (tmp_path / 'empty' / 'phantoms.json').is_file()


@pytest.mark.parametrize(
    ('key', 'value'), [('num_images', 0), ('size', 31), ('seed', -1), ('positive_share', 1.5)]
)
def test_unusable_arguments_are_named(tmp_path, key, value):
    arguments = {'num_images': 2, 'size': 32, 'seed': 0, 'positive_share': 0.5, key: value}
    with pytest.raises(UsageError, match=str(value)):
        phantom.write_dataset(tmp_path / 'set', **arguments)
    assert not (tmp_path / 'set').exists()
