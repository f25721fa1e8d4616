"""The cache: decoded once, never stale, never half there."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumojax.data.cache import records, shards
from pneumojax.data.datasets import example as example_lib
from pneumojax.errors import UsageError
from tests.data.cache.records_checks import SIZE, assert_right, copied


@pytest.fixture
def loads(monkeypatch):
    """ImageIds decoded, in the order of the calls."""
    calls, read = [], example_lib.read
    monkeypatch.setattr(example_lib, 'read', lambda e: (calls.append(e.image_id), read(e))[1])
    return calls


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_a_record_is_exact(size, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, size), np.uint8)
    mask = rng.integers(0, 2, (size, size), np.uint8)
    record = shards.encode(image, mask)
    got_image, got_mask = shards.decode(record, size)
    np.testing.assert_array_equal(got_image, image)
    np.testing.assert_array_equal(got_mask, mask)
    assert got_image.dtype == got_mask.dtype == np.uint8
    for other in (record[:-1], record + b'\0'):
        with pytest.raises(ValueError, match=f'{size} px'):
            shards.decode(other, size)


def test_the_cache_holds_every_image_fitted(tmp_path, drawn):
    assert any(e.positive for e in drawn)
    assert_right(records.prepare(tmp_path, drawn, SIZE), drawn)


def test_several_shards_keep_the_order(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(shards, 'SHARD_SIZE', 3)
    cache = records.prepare(tmp_path, drawn, SIZE)
    assert len(list(cache.folder.glob('shard-*'))) == 3
    assert_right(cache, drawn)


def test_nothing_is_decoded_twice(tmp_path, drawn, loads):
    first = records.prepare(tmp_path, drawn, SIZE)
    assert sorted(loads) == [e.image_id for e in drawn]
    again = records.prepare(tmp_path, drawn, SIZE)
    assert len(loads) == len(drawn)
    assert again.folder == first.folder


def test_others_may_read_the_cache(tmp_path, drawn):
    folder = records.prepare(tmp_path, drawn, SIZE).folder
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {p.name for p in folder.iterdir()} == {'manifest.json', 'shard-00000.array_record'}


def test_several_sizes_come_from_one_decoding(tmp_path, drawn, loads):
    records.prepare(tmp_path, drawn, SIZE, also=(SIZE, 2 * SIZE))
    assert len(loads) == len(drawn)
    for size in (SIZE, 2 * SIZE):
        assert_right(records.prepare(tmp_path, drawn, size), drawn, size)
    loads.clear()
    more = records.prepare(tmp_path, drawn, 3 * SIZE, also=(SIZE,))  # only what is missing
    assert len(loads) == len(drawn)
    assert_right(more, drawn, 3 * SIZE)


def changed_size(examples):
    return examples, SIZE + 1


def changed_mask(examples):
    e = examples[0]
    mask = ('0 5',) if e.rles != ('0 5',) else ()
    return [example_lib.Example(e.image_id, e.path, mask, e.patient_id), *examples[1:]], SIZE


def changed_time(examples):
    os.utime(examples[0].path, ns=(1, 1))
    return examples, SIZE


def changed_length(examples):
    stat = os.stat(examples[1].path)
    with open(examples[1].path, 'ab') as file:
        file.write(b'\0' * 2)
    os.utime(examples[1].path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return examples, SIZE


def changed_list(examples):
    return examples[:1], SIZE


@pytest.mark.parametrize(
    'change', [changed_size, changed_mask, changed_time, changed_length, changed_list]
)
def test_whatever_changes_the_content_makes_another_cache(tmp_path, drawn, change):
    examples = copied(drawn, tmp_path / 'dicom')
    before = records.prepare(tmp_path / 'cache', examples, SIZE)
    examples, size = change(examples)
    after = records.prepare(tmp_path / 'cache', examples, size)
    assert after.folder != before.folder
    assert_right(after, examples, size)


def test_a_patient_is_no_part_of_it(tmp_path, drawn, loads):
    records.prepare(tmp_path, drawn, SIZE)
    other = [example_lib.Example(e.image_id, e.path, e.rles, 'someone') for e in drawn]
    records.prepare(tmp_path, other, SIZE)
    assert len(loads) == len(drawn)


@pytest.mark.parametrize('error', [UsageError('bad file'), KeyboardInterrupt(), OSError('broken')])
def test_a_failure_leaves_nothing(tmp_path, drawn, monkeypatch, error):
    read, calls = example_lib.read, []

    def failing(example):
        calls.append(example)
        if len(calls) == 5:
            raise error
        return read(example)

    with monkeypatch.context() as patch:
        patch.setattr(example_lib, 'read', failing)
        expected = UsageError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected):
            records.prepare(tmp_path, drawn, SIZE)
    assert list(tmp_path.iterdir()) == []
    assert_right(records.prepare(tmp_path, drawn, SIZE), drawn)


def test_a_missing_file_is_named(tmp_path):
    example = example_lib.Example('1.2.3', str(tmp_path / 'gone.dcm'), (), 'secret')
    with pytest.raises(UsageError, match=r'1\.2\.3.*gone\.dcm') as e:
        records.prepare(tmp_path, [example], SIZE)
    assert 'secret' not in str(e.value)


@pytest.mark.parametrize('cache', ['file', 'file/below'])
def test_a_cache_folder_that_cannot_be_made(tmp_path, drawn, cache):
    (tmp_path / 'file').write_text('precious')
    with pytest.raises(UsageError, match=r'config\.data\.cache.*file'):
        records.prepare(tmp_path / cache, drawn, SIZE)
    assert (tmp_path / 'file').read_text() == 'precious'


def test_a_folder_in_the_way_is_not_overwritten(tmp_path, drawn):
    folder = records.cache_folder(tmp_path, drawn, SIZE)
    folder.mkdir()
    (folder / 'notes').write_text('mine')
    with pytest.raises(UsageError, match=str(folder)):
        records.prepare(tmp_path, drawn, SIZE)
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]
    assert (folder / 'notes').read_text() == 'mine'


def drop_a_record(folder):
    text = (folder / 'manifest.json').read_text()
    for name in records.json.loads(text)['image_ids'][:1]:
        (folder / 'manifest.json').write_text(text.replace(f'"{name}", ', ''))


@pytest.mark.parametrize(
    'damage',
    [
        drop_a_record,
        lambda folder: (folder / 'manifest.json').write_text('{"image_size": 24'),
        lambda folder: (folder / 'manifest.json').write_text('{}'),
        lambda folder: (folder / 'shard-00000.array_record').unlink(),
        lambda folder: os.truncate(folder / 'shard-00000.array_record', 1000),
    ],
    ids=['fewer records', 'half a manifest', 'empty manifest', 'no shard', 'half a shard'],
)
def test_a_damaged_cache_is_refused(tmp_path, drawn, damage):
    folder = records.prepare(tmp_path, drawn, SIZE).folder
    damage(folder)
    with pytest.raises(UsageError, match=f'{folder}.*delete the folder'):
        records.prepare(tmp_path, drawn, SIZE)
