"""The cache: decoded once, never stale, never half there."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumojax.data import geometry, labelled, phantom, records, shards, siim
from pneumojax.errors import UsageError

SIZE = 24


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Seven phantoms."""
    root = tmp_path_factory.mktemp('data') / 'phantoms'
    phantom.write_dataset(root, num_images=7, size=32, seed=3, positive_share=0.5)
    return siim.find(root).examples


@pytest.fixture
def loads(monkeypatch):
    """ImageIds decoded, in the order of the calls."""
    calls, load = [], labelled.load
    monkeypatch.setattr(labelled, 'load', lambda e: (calls.append(e.image_id), load(e))[1])
    return calls


def assert_right(cache, examples, size=SIZE):
    assert cache.image_ids == [e.image_id for e in examples]
    assert len(cache) == len(examples)
    for i, example in enumerate(examples):
        image, mask = labelled.load(example)
        assert cache.shapes[i] == image.shape
        got_image, got_mask = cache[i]
        np.testing.assert_array_equal(got_image, geometry.fit_image(image, size))
        np.testing.assert_array_equal(got_mask, geometry.fit_mask(mask, size))


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


@pytest.fixture
def by_processes(monkeypatch):
    """Shards of two records, each written by one of two helper processes."""
    monkeypatch.setattr(shards, 'SHARD_SIZE', 2)
    monkeypatch.setattr(shards, 'PROCESSES_FROM', 1)
    monkeypatch.setattr(shards, 'cores', lambda: 2)


def test_processes_write_the_bytes_that_threads_write(tmp_path, drawn, by_processes, monkeypatch):
    starts, start = [], shards.child.start

    def counted(module, *more, **options):
        starts.append(module)
        return start(module, *more, **options)

    monkeypatch.setattr(shards.child, 'start', counted)
    one = records.prepare(tmp_path / 'processes', drawn, SIZE, also=(2 * SIZE,))
    assert len(starts) == 2
    monkeypatch.setattr(shards, 'PROCESSES_FROM', 100)
    other = records.prepare(tmp_path / 'threads', drawn, SIZE, also=(2 * SIZE,))
    assert len(starts) == 2
    assert_right(one, drawn)
    contents = [
        {p.relative_to(f.parent): p.read_bytes() for p in f.parent.rglob('*') if p.is_file()}
        for f in (one.folder, other.folder)
    ]
    assert len(contents[0]) == 2 * (4 + 1)
    assert contents[0] == contents[1]


def test_of_several_bad_files_processes_name_the_first(tmp_path, drawn, by_processes):
    examples = [*drawn[:3], *copied(drawn, tmp_path / 'dicom'), *drawn[3:]]
    for bad in examples[3:5]:
        os.truncate(bad.path, 700)
    with pytest.raises(UsageError, match=f'ImageId {examples[3].image_id}: {examples[3].path}'):
        records.prepare(tmp_path / 'cache', examples, SIZE)
    assert list((tmp_path / 'cache').iterdir()) == []


def test_a_helper_that_dies_is_no_end_of_waiting(tmp_path, drawn, by_processes, monkeypatch):
    def start(module, environment, **options):
        return subprocess.Popen([sys.executable, '-c', 'raise SystemExit(7)'], **options)

    monkeypatch.setattr(shards.child, 'start', start)
    with pytest.raises(UsageError, match=r'ended \(status 7\).*run the same command again'):
        records.prepare(tmp_path, drawn, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_a_helper(tmp_path, drawn, by_processes, monkeypatch):
    start = shards.child.start

    def limited(module, *more, **options):
        full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # noqa: E731
        return start(module, *more, preexec_fn=full, **options)

    monkeypatch.setattr(shards.child, 'start', limited)
    with pytest.raises(UsageError, match=r'config\.data\.cache: cannot write in'):
        records.prepare(tmp_path, drawn, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_large_images_take_turns_over_all_processes(tmp_path):
    turns = [shards._Turns(tmp_path), shards._Turns(tmp_path)]
    held = threading.Event()

    def wait_for_it():
        with turns[1]:
            held.set()

    with turns[0]:
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not held.wait(0.1)
    assert held.wait(10)
    waiting.join()


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


def copied(drawn, folder):
    """The same images as files of their own, which a test may change."""
    folder.mkdir()
    examples = []
    for e in drawn[:2]:
        path = folder / f'{e.image_id}.dcm'
        path.write_bytes(pathlib.Path(e.path).read_bytes())
        examples.append(labelled.Example(e.image_id, str(path), e.rles, e.patient_id))
    return examples


def changed_size(examples):
    return examples, SIZE + 1


def changed_mask(examples):
    e = examples[0]
    mask = ('0 5',) if e.rles != ('0 5',) else ()
    return [labelled.Example(e.image_id, e.path, mask, e.patient_id), *examples[1:]], SIZE


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
    other = [labelled.Example(e.image_id, e.path, e.rles, 'someone') for e in drawn]
    records.prepare(tmp_path, other, SIZE)
    assert len(loads) == len(drawn)


@pytest.mark.parametrize('error', [UsageError('bad file'), KeyboardInterrupt(), OSError('broken')])
def test_a_failure_leaves_nothing(tmp_path, drawn, monkeypatch, error):
    load, calls = labelled.load, []

    def failing(example):
        calls.append(example)
        if len(calls) == 5:
            raise error
        return load(example)

    with monkeypatch.context() as patch:
        patch.setattr(labelled, 'load', failing)
        expected = UsageError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected):
            records.prepare(tmp_path, drawn, SIZE)
    assert list(tmp_path.iterdir()) == []
    assert_right(records.prepare(tmp_path, drawn, SIZE), drawn)


def test_a_missing_file_is_named(tmp_path):
    example = labelled.Example('1.2.3', str(tmp_path / 'gone.dcm'), (), 'secret')
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


PROGRAM = """
import gc, resource, sys, time
from pneumojax.data import labelled, records, shards, siim
from pneumojax.errors import UsageError
root, cache, mode = sys.argv[1:]
examples = siim.find(root).examples
load = labelled.load
seen = []
def slow(example):
    seen.append(example)
    if mode == 'hang' and len(seen) > 4:
        print('hanging\\n', end='', flush=True)  # at once: two threads may be here
        time.sleep(60)
    return load(example)
labelled.load = slow
if mode == 'processes':
    shards.SHARD_SIZE, shards.PROCESSES_FROM, shards.cores = 2, 1, lambda: 2
    gc.disable()  # Python drops a Ctrl-C that comes in a callback of the collector, and JAX has one
if mode == 'full':
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
if mode == 'race':
    print('ready', flush=True)
    sys.stdin.readline()
try:
    records.prepare(cache, examples, 24)
    print('decoded', len(seen))
except UsageError as e:
    print('refused', e)
"""


def start(drawn, cache, mode):
    root = pathlib.Path(drawn[0].path).parents[3]
    return subprocess.Popen(
        [sys.executable, '-c', PROGRAM, str(root), str(cache), mode],
        cwd=pathlib.Path(__file__).parents[2], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_passes_for_a_cache(tmp_path, drawn):
    with start(drawn, tmp_path, 'hang') as process:
        assert process.stdout.readline() == 'hanging\n', process.stderr.read()
        (half,) = tmp_path.iterdir()
        # While it lives, nobody takes its folder away.
        assert_right(records.prepare(tmp_path, drawn[:2], SIZE), drawn[:2])
        assert half.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert half.is_dir()
    assert not records.cache_folder(tmp_path, drawn, SIZE).exists()
    cache = records.prepare(tmp_path, drawn, SIZE)
    assert_right(cache, drawn)
    assert not half.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]


@pytest.mark.slow
def test_two_processes_at_once_both_get_the_right_cache(tmp_path, drawn):
    with start(drawn, tmp_path, 'race') as one, start(drawn, tmp_path, 'race') as other:
        for process in (one, other):
            assert process.stdout.readline() == 'ready\n', process.stderr.read()
        for process in (one, other):
            process.stdin.write('\n')
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0]
    assert all(text.startswith('decoded') for text in outputs)
    (folder,) = tmp_path.iterdir()
    before = time.time_ns()
    cache = records.prepare(tmp_path, drawn, SIZE)
    assert (folder / 'manifest.json').stat().st_mtime_ns < before
    assert_right(cache, drawn)


@pytest.mark.slow
@pytest.mark.parametrize('sent', ['SIGKILL', 'SIGINT'])
def test_helpers_end_with_their_caller(tmp_path, drawn, sent):
    with start(drawn, tmp_path, 'processes') as process:
        children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
        deadline = time.monotonic() + 60
        while len(helpers := children.read_text().split()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        if sent == 'SIGKILL':
            process.kill()  # alone
        else:
            os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        errors = process.communicate()[1]
    while any(map(alive, helpers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(helpers) == 2
    assert not any(map(alive, helpers))
    if sent == 'SIGINT':
        assert errors.splitlines()[-1] == 'KeyboardInterrupt', errors
        assert list(tmp_path.iterdir()) == []
    assert_right(records.prepare(tmp_path, drawn, SIZE), drawn)
    assert [p.name[0] for p in tmp_path.iterdir()] == ['2']  # of 24px-...


def alive(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path, drawn):
    """A limit on the size of files stands for it: writes fail in the same way."""
    with start(drawn, tmp_path, 'full') as process:
        output, errors = process.communicate()
    assert output.startswith('refused config.data.cache: cannot write'), output + errors
    assert list(tmp_path.iterdir()) == []
