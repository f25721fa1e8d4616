"""Your own images and masks: what a mask file means, and which image it belongs to."""

import os
import unicodedata

import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sr.coding import Code

from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import folder_dataset, siim
from pneumojax.data.files import headers
from pneumojax.errors import UsageError
from pneumojax.prediction import reference, seg
from pneumojax.system import limits
from tests.data.datasets.folder_images import drawing, ids, table, write

LUNG, TISSUE = Code('39607008', 'SCT', 'Lung structure'), Code('85756007', 'SCT', 'Tissue')
PNEUMOTHORAX = Code('36118008', 'SCT', 'Pneumothorax')


def masks_of(root):
    return {e.image_id: example_lib.load(e)[1] for e in folder_dataset.find(str(root))}


# --- segments of a DICOM SEG -------------------------------------------------------------------


def segments_of(example, segments, **tags):
    """A Segmentation with a square for each (label, code); the n-th begins at row and column n."""
    with limits.BoundedFile(example.path) as file:
        header = headers.read(file)
    source = reference.reference(header, example_lib.load(example)[0].shape)
    for keyword, value in tags.items():
        setattr(source, keyword, value)
    masks = np.zeros((1, source.Rows, source.Columns, len(segments)), np.uint8)
    descriptions = []
    for n, (label, code) in enumerate(segments):
        masks[0, n : n + 9, n : n + 9, n] = 1
        descriptions.append(
            highdicom.seg.SegmentDescription(n + 1, label, seg.CATEGORY, code, 'MANUAL')
        )
    return masks, highdicom.seg.Segmentation(
        [source], masks, 'BINARY', descriptions, highdicom.UID(), 1, highdicom.UID(), 1,
        'somebody', 'a program', '1', '1', content_label='ANY',
    )  # fmt: skip


@pytest.mark.parametrize(
    ('segments', 'counted'),
    [
        # The code decides, whatever the label says.
        ([('Pneumothorax', PNEUMOTHORAX), ('Lung, no pneumothorax', LUNG)], [0]),
        ([('Lung next to the pneumothorax', LUNG), ('1', PNEUMOTHORAX)], [1]),
        ([('Pneumothorax', LUNG), ('pneumothorax', LUNG)], None),
        ([('1', Code('D2-80300', 'SRT', 'Pneumothorax')), ('2', LUNG)], [0]),
        ([('1', Code('233645004', 'SCT', 'Tension pneumothorax')), ('2', LUNG)], [0]),
        ([('1', Code('P1', '99LOCAL', 'Pneumothorax')), ('2', LUNG)], [0]),
        ([('pneumothorax', Code('N', '99LOCAL', 'No pneumothorax')), ('2', LUNG)], None),
        # It says nothing, so the label does.
        (
            [('Lung', TISSUE), ('Left Pneumothorax', TISSUE), ('pneumothorax right', TISSUE)],
            [1, 2],
        ),
        ([('Lung, no pneumothorax', TISSUE), ('Pneumothorax, no drain', TISSUE)], [1]),
        ([('without any pneumothorax', TISSUE), ('pneumothorax: none', TISSUE)], None),
        ([('pneumothorax', Code('T-D0050', 'SRT', 'Tissue')), ('Lung', TISSUE)], [0]),
        # A single one is used.
        ([('Segment_1', LUNG)], [0]),
        ([('Lung', LUNG), ('Heart', LUNG)], None),
    ],
)
def test_which_segment_counts(films, messages, segments, counted):
    root, true = films
    example = next(iter(true.values()))
    masks, file = segments_of(example, segments)
    (root / 'masks').mkdir()
    file.save_as(root / 'masks' / 'a.dcm')
    if counted is None:
        with pytest.raises(UsageError, match=r'a\.dcm: none of its 2 segments is a pneumothorax'):
            folder_dataset.find(str(root))
        return
    (found,) = folder_dataset.find(str(root))
    assert found.image_id == example.image_id
    np.testing.assert_array_equal(example_lib.load(found)[1], masks[0][..., counted].any(axis=-1))
    unsure = [m for m in messages if 'a single segment that is not named pneumothorax' in m]
    assert bool(unsure) == (segments[0][0] == 'Segment_1')


def test_the_label_counts_where_there_is_no_code(films):
    root, true = films
    segments = [('Lung', TISSUE), ('Pneumothorax', TISSUE)]
    masks, file = segments_of(next(iter(true.values())), segments)
    for item in file.SegmentSequence:
        item.SegmentedPropertyTypeCodeSequence[0].CodeValue = ''
    (root / 'masks').mkdir()
    file.save_as(root / 'masks' / 'a.dcm')
    (mask,) = masks_of(root).values()
    np.testing.assert_array_equal(mask, masks[0][..., 1])


def test_a_segmentation_with_spacing_but_without_thickness(films):
    root, true = films
    masks, file = segments_of(
        next(iter(true.values())), [('x', PNEUMOTHORAX)], PixelSpacing=[0.2, 0.2]
    )
    measures = file.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert 'SliceThickness' not in measures
    (root / 'masks').mkdir()
    file.save_as(root / 'masks' / 'a.dcm')
    (mask,) = masks_of(root).values()
    np.testing.assert_array_equal(mask, masks[0][..., 0])
    file = pydicom.dcmread(root / 'masks' / 'a.dcm')
    shared = file.SharedFunctionalGroupsSequence[0]
    file.PerFrameFunctionalGroupsSequence[0].PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PixelMeasuresSequence
    file.save_as(root / 'masks' / 'a.dcm')
    np.testing.assert_array_equal(next(iter(masks_of(root).values())), masks[0][..., 0])


@pytest.mark.parametrize('damage', ['no number of frames', 'a frame without its image'])
def test_frames_that_would_be_lost_are_refused(films, damage):
    root, true = films
    _, file = segments_of(next(iter(true.values())), [('1', PNEUMOTHORAX), ('2', PNEUMOTHORAX)])
    if damage == 'no number of frames':
        del file.NumberOfFrames
    else:
        frame = file.PerFrameFunctionalGroupsSequence[1]
        del frame.DerivationImageSequence[0].SourceImageSequence
    (root / 'masks').mkdir()
    file.save_as(root / 'masks' / 'a.dcm')
    with pytest.raises(UsageError, match=r'a\.dcm: .*frames'):
        folder_dataset.find(str(root))


# --- PNG ---------------------------------------------------------------------------------------


def test_soft_masks_and_labels_are_said(root, messages):
    _, mask = drawing(0)
    disc = cv2.circle(0 * mask, (27, 19), 13, 255, -1)
    write(root / 'masks' / 'a.png', cv2.GaussianBlur(disc, (9, 9), 3))
    write(root / 'masks' / 'b.png', disc // 255 * np.uint8(2) - (disc > 0) * (mask > 0))
    masks = masks_of(root)
    assert abs(int(masks['a'].sum()) - np.count_nonzero(disc)) < 0.05 * np.count_nonzero(disc)
    np.testing.assert_array_equal(masks['b'], disc > 0)
    said = '\n'.join(messages)
    assert '1 masks have soft edges' in said
    assert f'the first is {root / "masks" / "a.png"}' in said
    assert '1 masks hold several values besides black' in said


def test_an_orientation_of_the_image_alone_is_said(root, messages):
    turned = Image.Exif()
    turned[0x0112] = 3
    image, mask = drawing(0)
    Image.fromarray(image).save(root / 'images' / 'a.png', exif=turned.tobytes())
    (a, *_) = folder_dataset.find(str(root))
    read, drawn = example_lib.load(a)
    np.testing.assert_array_equal(read, image[::-1, ::-1])
    np.testing.assert_array_equal(drawn, mask)  # as a program draws it that shows the image
    expected = '1 masks state another EXIF orientation than their image'
    assert any(m.startswith(expected) for m in messages)

    messages.clear()
    Image.fromarray(mask * np.uint8(255)).save(root / 'masks' / 'a.png', exif=turned.tobytes())
    (a, *_) = folder_dataset.find(str(root))
    np.testing.assert_array_equal(example_lib.load(a)[1], mask[::-1, ::-1])
    assert not any('EXIF' in m for m in messages)


# --- names -------------------------------------------------------------------------------------


def renamed(path, name, form):
    os.rename(path, path.with_name(unicodedata.normalize(form, name)))


def test_accents_pair_however_they_are_written(root, tmp_path, messages):
    renamed(root / 'images' / 'a.png', 'Bücher é.png', 'NFD')
    renamed(root / 'masks' / 'a.png', 'Bücher é.png', 'NFC')
    renamed(root / 'images' / 'b.png', 'ä.png', 'NFC')
    renamed(root / 'masks' / 'b.png', 'ä.png', 'NFD')
    names = [unicodedata.normalize('NFC', name) for name in ('Bücher é', 'c', 'ä')]
    assert ids(folder_dataset.find(str(root))) == names
    patients = tmp_path / 'patients.csv'
    for form in ('NFC', 'NFD'):
        rows = ''.join(f'{name},{name} P\n' for name in names)
        patients.write_text(unicodedata.normalize(form, 'ImageId,PatientId\n' + rows))
        found = folder_dataset.find(str(root), patients=str(patients))
        assert [e.patient_id for e in found] == [f'{name} P' for name in names]
        table(root, unicodedata.normalize(form, 'ImageId,Pneumothorax\nBücher é,1\nä.png,1\n'))
        assert ids(folder_dataset.find(str(root))) == [names[0], names[2]]
        (root / 'table.csv').unlink()
    assert not any('left out; the first is B' in m for m in messages)


def test_two_forms_of_a_name_are_the_same_name(root):
    for form in ('NFC', 'NFD'):
        write(root / 'images' / unicodedata.normalize(form, 'é.png'), drawing(1)[0])
    with pytest.raises(UsageError, match=r'is found twice: .*\(NFC, NFD\)'):
        folder_dataset.find(str(root))


def test_kaggles_layout_pairs_accents_too(films):
    root, true = films
    example = next(iter(true.values()))
    os.rename(example.path, root / unicodedata.normalize('NFD', 'é.dcm'))
    (root / 'train-rle.csv').write_text('ImageId,EncodedPixels\n\u00e9,-1\n', encoding='utf-8')
    assert [e.image_id for e in siim.find(root).examples] == ['\u00e9']


def test_names_in_bytes_that_are_not_text_pair(root):
    for folder in ('images', 'masks'):
        name = os.fsencode(root / folder)
        os.rename(name + b'/a.png', name + b'/\xff\xe9.png')
    assert ids(folder_dataset.find(str(root))) == ['\\xff\\xe9', 'b', 'c']


def test_files_of_operating_systems_are_no_masks(root, messages):
    for folder in ('images', 'masks'):
        for name in ('._a.png', '.DS_Store', 'Thumbs.db'):
            (root / folder / name).write_bytes(b'\0\5\x16\7\0\2\0\0Mac OS X        ' + bytes(200))
    os.mkfifo(root / 'images' / 'x.dcm')
    os.mkfifo(root / 'masks' / 'x.png')
    assert ids(folder_dataset.find(str(root))) == ['a', 'b', 'c']
    lost = [m for m in messages if 'not masks' in m]
    assert len(lost) == 1
    assert lost[0].startswith('1 files')
    assert 'x.png' in lost[0]
