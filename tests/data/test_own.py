"""One's own images and masks: what is taken, what is left out and said, what is refused."""

import pathlib
import shutil

import cv2
import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sr.coding import Code

from pneumojax import config as config_lib
from pneumojax.data import dataset, headers, labelled, own, phantom, siim
from pneumojax.errors import UsageError
from pneumojax.inference.predict import Options, predict
from pneumojax.outputs import seg
from pneumojax.run import Run
from pneumojax.training import stages
from tests.conftest import tiny_config

SHAPE = 40, 56  # not square


def drawing(seed, positive=True):
    """A phantom's image and mask, cut to SHAPE; the mask of a positive is not empty."""
    drawn = phantom.draw(np.random.default_rng(seed), 64, positive)
    image, mask = (part[: SHAPE[0], : SHAPE[1]].copy() for part in drawn[:2])
    mask[0, :3] |= np.uint8(positive)
    return image, mask


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def root(tmp_path):
    """Images a to d: two positives, a black mask, and one of which nothing is known."""
    root = tmp_path / 'own'
    for seed, name in enumerate('abcd'):
        image, mask = drawing(seed, positive=name in 'ab')
        write(root / 'images' / f'{name}.png', image)
        if name != 'd':
            write(root / 'masks' / f'{name}.png', mask * np.uint8(255))
    return root


def table(root, text):
    (root / 'table.csv').write_text(text)


def ids(examples):
    return [e.image_id for e in examples]


# --- PNG ---------------------------------------------------------------------------------------


def test_images_and_masks_of_the_same_name(root, messages):
    examples = own.find(str(root))
    assert ids(examples) == ['a', 'b', 'c']
    assert [e.positive for e in examples] == [True, True, False]
    assert [e.patient_id for e in examples] == ['a', 'b', 'c']
    for seed, example in enumerate(examples):
        image, mask = labelled.load(example)
        drawn = drawing(seed, example.positive)
        np.testing.assert_array_equal(image, drawn[0])
        np.testing.assert_array_equal(mask, drawn[1])
        assert image.shape == SHAPE
    assert any(m.startswith('1 images have no mask and are left out') for m in messages)
    assert any(m.endswith('the first is d') for m in messages)


def test_an_image_of_which_nothing_is_known_is_never_a_negative(root):
    (root / 'masks' / 'b.png').unlink()  # lost
    assert ids(own.find(str(root))) == ['a', 'c']
    table(root, 'ImageId\na\nb\nc\nd\n')  # a row alone says nothing
    assert ids(own.find(str(root))) == ['a', 'c']
    table(root, 'ImageId,Pneumothorax\na,1\nb,1\nc,\nd,0\n')
    examples = own.find(str(root))
    assert [(e.image_id, e.positive) for e in examples] == [('a', True), ('c', False), ('d', False)]
    assert not labelled.load(examples[2])[1].any()


@pytest.mark.parametrize('kind', ['1', 'L', 'P', 'RGB', 'RGBA', 'I;16', 'white'])
def test_every_kind_of_png_mask(root, kind):
    _, mask = drawing(0)
    pictures = {
        '1': Image.fromarray(mask * np.uint8(255)).convert('1'),
        'L': Image.fromarray(mask),  # 0 and 1
        'RGB': Image.fromarray(np.stack([mask * np.uint8(200), 0 * mask, 0 * mask], -1)),
        'RGBA': Image.fromarray(np.stack([mask, mask, mask, 0 * mask + np.uint8(255)], -1)),
        'I;16': Image.fromarray(mask.astype(np.uint16)),
        'white': Image.fromarray(0 * mask + np.uint8(9)),
    }
    palette = Image.fromarray(mask, 'L').convert('P')
    palette.putdata(mask.ravel().tolist())
    palette.putpalette([0, 0, 0, 255, 0, 0])
    (pictures | {'P': palette})[kind].save(root / 'masks' / 'a.png')
    read = labelled.load(own.find(str(root))[0])[1]
    np.testing.assert_array_equal(read, np.ones_like(mask) if kind == 'white' else mask)


def test_images_may_be_jpeg_or_have_sixteen_bits(root):
    image, _ = drawing(0)
    write(root / 'images' / 'a.png', image.astype(np.uint16) * 256)
    (root / 'images' / 'b.png').unlink()
    write(root / 'deeper' / 'b.JPG', drawing(1)[0])
    first, second = own.find(str(root))[:2]
    spread = (image - float(image.min())) * 255 / float(np.ptp(image))
    np.testing.assert_allclose(labelled.load(first)[0], spread, atol=0.51)
    assert np.abs(labelled.load(second)[0].astype(int) - drawing(1)[0]).mean() < 3


def test_masks_may_lie_elsewhere(root, tmp_path):
    shutil.move(root / 'masks', tmp_path / 'drawn')
    with pytest.raises(UsageError, match=r'4 images below .*no mask of any.*configs/demo\.py'):
        own.find(str(root))
    assert ids(own.find(str(root), str(tmp_path / 'drawn'))) == ['a', 'b', 'c']


def test_what_has_no_counterpart_and_what_looks_odd_is_said(root, messages):
    write(root / 'masks' / 'x.png', drawing(0)[1])
    write(root / 'masks' / 'a.png', 255 - drawing(0)[1] * np.uint8(255))
    (root / 'masks' / 'notes.txt').write_text('drawn by two readers')
    (root / 'notes.txt').write_text('films of last year')
    table(root, 'ImageId\na\nb.png\nelsewhere\n')
    assert ids(own.find(str(root))) == ['a', 'b']
    said = '\n'.join(messages)
    assert '1 masks have no image of the same name and are left out; the first is ' in said
    assert '1 masks cover more than half of their image' in said
    assert '1 files in the folder of masks are no masks' in said
    assert '2 images have no row in the table and are left out; the first is c' in said
    assert '1 ImageIds of the table have no image and are left out; the first is elsewhere' in said


# --- DICOM -------------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path):
    """Six phantoms as DICOM files, without Kaggle's CSV; and their true examples."""
    root = phantom.write_dataset(
        tmp_path / 'films', num_images=6, size=64, seed=5, positive_share=0.5
    )
    true = {e.image_id: e for e in siim.find(root).examples}
    (root / 'train-rle.csv').unlink()
    return root, true


def write_seg(folder, example, kind='binary', value=0.7):
    mask = labelled.load(example)[1]
    folder.mkdir(exist_ok=True)
    path = folder / f'result-{example.image_id[-9:]}.dcm'
    result = mask if kind == 'binary' else mask.astype(np.float32) * np.float32(value)
    algorithm = seg.Algorithm('0', 'a run', {})
    header = headers.read(example.path)
    seg.write(path, header, result, kind=kind, algorithm=algorithm, key='x')
    return path


@pytest.mark.parametrize('place', ['masks', 'anywhere'])
def test_segmentations_find_their_images_by_uid(films, place):
    root, true = films
    for i, example in enumerate(true.values()):
        write_seg(root / place, example, 'fractional' if i % 2 else 'binary')
    examples = own.find(str(root))
    assert ids(examples) == sorted(true)
    for example in examples:
        assert example.positive == true[example.image_id].positive
        for ours, theirs in zip(
            labelled.load(example), labelled.load(true[example.image_id]), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_patients_are_those_of_the_dicom_files_unless_somebody_says_otherwise(films):
    root, true = films
    for example in true.values():
        write_seg(root / 'masks', example)
    headed = {e: pydicom.dcmread(true[e].path).PatientID for e in true}
    assert {e.image_id: e.patient_id for e in own.find(str(root))} == headed
    named = own.find(str(root), patients=str(root / 'patients.csv'))
    stated = dict(line.split(',') for line in (root / 'patients.csv').read_text().split()[1:])
    assert {e.image_id: e.patient_id for e in named} == stated
    table(root, 'image id,patient_id\n' + ''.join(f'{e},p{i // 2}\n' for i, e in enumerate(true)))
    assert [e.patient_id for e in own.find(str(root))] == ['p0', 'p0', 'p1', 'p1', 'p2', 'p2']
    with pytest.raises(UsageError, match='keep one of them'):
        own.find(str(root), patients=str(root / 'patients.csv'))


def test_one_patient_id_for_all_is_refused(films):
    root, true = films
    for example in true.values():
        write_seg(root / 'masks', example)
        file = pydicom.dcmread(example.path)
        file.PatientID = 'SECRET'
        file.save_as(example.path)
    with pytest.raises(UsageError, match='all 6 DICOM files have the same PatientID') as error:
        own.find(str(root))
    assert 'SECRET' not in str(error.value)


def segments_of(example, labels):
    """A Segmentation with one square for each label, the n-th beginning at row and column n."""
    header = headers.read(example.path)
    source = seg.reference(header, labelled.load(example)[0].shape)
    masks = np.zeros((1, source.Rows, source.Columns, len(labels)), np.uint8)
    descriptions = []
    for n, label in enumerate(labels):
        masks[0, n : n + 9, n : n + 9, n] = 1
        kind = Code('39607008', 'SCT', 'Lung structure')
        descriptions.append(
            highdicom.seg.SegmentDescription(n + 1, label, seg.CATEGORY, kind, 'MANUAL')
        )
    return masks, highdicom.seg.Segmentation(
        [source], masks, 'BINARY', descriptions, highdicom.UID(), 1, highdicom.UID(), 1,
        'somebody', 'a program', '1', '1', content_label='ANY',
    )  # fmt: skip


@pytest.mark.parametrize(
    ('labels', 'counted'),
    [
        (['Lung', 'Left Pneumothorax', 'pneumothorax right'], [1, 2]),
        (['Segment_1'], [0]),
        (['Lung', 'Heart'], None),
    ],
)
def test_which_segment_counts(films, messages, labels, counted):
    root, true = films
    example = next(iter(true.values()))
    masks, file = segments_of(example, labels)
    (root / 'masks').mkdir()
    file.save_as(root / 'masks' / 'a.dcm')
    if counted is None:
        with pytest.raises(UsageError, match=r'a\.dcm: none of its 2 segments is a pneumothorax'):
            own.find(str(root))
        return
    (found,) = own.find(str(root))
    assert found.image_id == example.image_id
    np.testing.assert_array_equal(labelled.load(found)[1], masks[0][..., counted].any(axis=-1))
    unsure = [m for m in messages if 'a single segment that does not say pneumothorax' in m]
    assert bool(unsure) == (labels == ['Segment_1'])


def test_dicom_images_with_png_masks(films):
    root, true = films
    for name, example in true.items():
        write(root / 'masks' / f'{name}.png', labelled.load(example)[1] * np.uint8(255))
    for example in own.find(str(root)):
        np.testing.assert_array_equal(
            labelled.load(example)[1], labelled.load(true[example.image_id])[1]
        )


# --- refusals ----------------------------------------------------------------------------------


def find_and_load(*arguments):
    return [labelled.load(example) for example in own.find(*map(str, arguments))]


def refused(expected, *arguments):
    with pytest.raises(UsageError, match=expected) as error:
        find_and_load(*arguments)
    assert '\n' not in str(error.value)


def test_a_mask_of_another_size(root):
    write(root / 'masks' / 'b.png', drawing(1)[1][:, :50])
    refused(r'ImageId b: the image .*b\.png has 40 x 56 pixels .* its mask 40 x 50', root)


def test_masks_that_cannot_be_read(root):
    _, mask = drawing(0)
    path = root / 'masks' / 'a.png'
    Image.fromarray(np.stack([0 * mask] * 3 + [mask * np.uint8(255)], -1)).save(path)
    refused(r'ImageId a: the mask .*a\.png: the mask is partly transparent', root)
    Image.fromarray(mask * np.uint8(255)).save(path, 'JPEG')
    refused(r'a\.png: a mask is a PNG file', root)
    Image.fromarray(mask).save(path)
    path.write_bytes(path.read_bytes()[:60])
    refused(r'a\.png: cut short', root)


def test_names_and_uids_that_are_there_twice(root, films, tmp_path):
    films, true = films
    example = next(iter(true.values()))
    write_seg(films / 'masks', example)
    shutil.copy(example.path, films / 'copy.dcm')
    refused(r'are the same image \(SOPInstanceUID\)', films)
    (films / 'copy.dcm').unlink()
    write(films / 'masks' / f'{example.image_id}.png', labelled.load(example)[1])
    refused(f'ImageId {example.image_id} has two masks', films)
    write(root / 'more' / 'a.png', drawing(7)[0])
    refused(r'ImageId a is found twice: .*images/a\.png and .*more/a\.png', root)
    shutil.rmtree(root / 'more')
    write(root / 'masks' / 'more' / 'a.png', drawing(0)[1])
    refused('two masks are called a', root)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('ImageId,Pneumothorax\na,0\n', 'a: the table says Pneumothorax 0, but the mask is not'),
        ('ImageId,Pneumothorax\nc,1\n', 'c: the table says Pneumothorax 1, but the mask is em'),
        ('ImageId,Pneumothorax\na,yes\n', 'line 2: the column Pneumothorax holds none of 0'),
        ('ImageId,PatientId\na,SECRET\nb,\n', 'line 3: ImageId b has no PatientId'),
        ('ImageId,PatientId\na,SECRET\na,other\n', 'line 3: ImageId a has another row'),
        ('ImageId,split\na,dev\n', 'line 2: the column split holds none of'),
        ('ImageId,fold\na,5\n', 'line 2: the column fold holds no whole number from 0 to 4'),
        ('ImageId,fold,split\na,0,train\n', 'both a column split and a column fold'),
        ('SECRET,x\na,5\n', 'the column ImageId is missing from the first line'),
        ('ImageId,split,Split\na,train,train\n', 'the column split is there twice'),
        ('ImageId,split\na,train,SECRET\n', 'line 2: 3 cells under a header of 2'),
        ('ImageId,split\n,train\n', 'line 2: the row has no ImageId'),
        ('ImageId\n"a\nb\n', r'cannot be read as a CSV .*Error'),
        ('ImageId,split\na\n', 'line 2: the row has no split'),
        ('ImageId\n', 'holds no rows'),
        ('ImageId\nx\n', 'none of 4 images can be used'),
    ],
)  # fmt: skip
def test_tables_that_are_refused(root, text, expected):
    table(root, text)
    with pytest.raises(UsageError, match=expected) as error:
        own.find(str(root))
    assert 'SECRET' not in str(error.value)
    assert '\n' not in str(error.value)


def test_folders_and_files_that_are_not_there(root, tmp_path):
    refused('data.root: there is no folder', tmp_path / 'nowhere')
    refused('data.masks: there is no folder', root, tmp_path / 'nowhere')
    refused('data.table: there is no file', root, '', tmp_path / 'nowhere.csv')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'a.txt').touch()
    refused('no DICOM, PNG or JPEG image', tmp_path / 'other')


# --- splits ------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    """Of 16 drawings of 8 patients, those with an odd number negative and without a mask file."""
    root = tmp_path / 'images'
    lines = ['ImageId,PatientId,Pneumothorax,split']
    for i in range(16):
        image, mask = drawing(i, positive=i % 2 == 0)
        write(root / f'film{i:02d}.png', image)
        if i % 2 == 0:
            write(root / 'masks' / f'film{i:02d}.png', mask * np.uint8(255))
        side = 'validation' if i >= 10 else 'train'
        lines.append(f'film{i:02d},p{i // 2},{1 - i % 2},{side}')
    table(root, '\n'.join(lines))
    return tiny_config(root, tmp_path / 'cache')


def test_the_split_of_the_table_is_kept(config):
    data = dataset.load(config)
    names = [f'film{i:02d}' for i in range(16)]
    assert data.split_ids() == {'train': names[:10], 'validation': names[10:]}
    assert data.positive.tolist() == [True, False] * 8
    assert data.records.shapes == [SHAPE] * 16
    config.data.fold = 1
    with pytest.raises(UsageError, match='a column split, which makes one split only'):
        dataset.load(config)


def test_the_folds_of_the_table_are_kept(config):
    lines = [f'film{i:02d},p{i // 2},{i // 2 % 4}' for i in range(16)]
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text('\n'.join(['ImageId,PatientId,fold', *lines]))
    for fold in range(4):
        config.data.fold = fold
        held_out = dataset.load(config).split_ids()['validation']
        assert held_out == [f'film{i:02d}' for i in range(0, 16, 2) if i // 2 % 4 == fold]


def test_a_split_that_parts_a_patient_is_refused(config):
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text(path.read_text().replace('film09,p4,0,train', 'film09,p4,0,validation'))
    with pytest.raises(UsageError, match=r'images of 1 patients on both .* film08 .* film09') as e:
        dataset.load(config)
    assert 'p4' not in str(e.value)


def test_a_split_without_one_of_its_sides_is_refused(config):
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text(path.read_text().replace(',validation', ',train'))
    with pytest.raises(UsageError, match=r'data\.table leaves 16 images, none of them to validate'):
        dataset.load(config)


def test_images_that_the_table_sets_aside_are_left_out(config, messages):
    path = pathlib.Path(config.data.root) / 'table.csv'
    path.write_text(path.read_text().replace(',train', ',TEST', 2))
    assert 'film00' not in ids(dataset.find(config.data))
    assert "2 images are left out, as the table's column split says test" in ' '.join(messages)


def test_kaggles_csv_comes_first_unless_the_configuration_says_otherwise(config):
    root = pathlib.Path(config.data.root)
    (root / 'train-rle.csv').write_text('ImageId,EncodedPixels\nx,-1\n')
    with pytest.raises(UsageError, match=r'no \.dcm file'):
        dataset.find(config.data)
    config.data.masks = str(root / 'masks')
    assert len(dataset.find(config.data)) == 16


@pytest.mark.slow
def test_from_ones_own_images_to_masks_of_others(config, tmp_path):
    """prepare, train, evaluate and predict, on images that are not square and no DICOM files."""
    workdir = tmp_path / 'run'
    config_lib.check(config)
    stages.prepare(config, workdir)
    stages.train(config, workdir)
    stages.evaluate(config, workdir)
    report = Run(workdir).read_json('evaluation.json')
    assert (report['n'], report['n_positive']) == (6, 3)
    rows = (workdir / 'per_image.csv').read_text().splitlines()[1:]
    true_px = {row.split(',')[0]: int(row.split(',')[2]) for row in rows}
    assert true_px == {
        f'film{i}': int(drawing(i, i % 2 == 0)[1].sum()) for i in range(10, 16)
    }  # counted at the original size
    options = Options(seg='none', overlays=False, heatmap=False, report=False, show_names=False)
    source = tmp_path / 'new'
    write(source / 'new.png', drawing(99)[0])
    assert predict([Run(workdir)], str(source), str(tmp_path / 'out'), options) == 0
    assert cv2.imread(str(tmp_path / 'out' / 'masks' / 'new.png'), 0).shape == SHAPE
