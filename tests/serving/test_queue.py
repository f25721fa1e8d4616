"""The queue against a model of it, over random histories; over kills; with a clock set back."""

import os
import pathlib
import signal
import sqlite3
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pneumojax.errors import UsageError
from pneumojax.serving.queue import Queue, digest
from tests.waiting import wait_for

TRIES, QUIET, DESTINATIONS = 3, 5.0, ('one', 'two')
REPOSITORY = pathlib.Path(__file__).parents[2]


class Histories(RuleBasedStateMachine):
    """Receives, predicts, sends, fails and is killed in any order; the model is a few dicts."""

    def __init__(self):
        super().__init__()
        self.now = 1e9
        self.folder = pathlib.Path(os.environ['QUEUE_TEST_FOLDER'])
        for path in self.folder.glob('queue*'):
            path.unlink()
        self.open()
        self.images = {}  # key -> [state, begun, received]
        self.sent = {}  # (key, destination) -> how often confirmed
        self.refusals = {}  # (key, destination) -> how often
        self.last = {}  # study -> when its last image arrived

    def open(self):
        self.queue = Queue(self.folder / 'queue.sqlite', lambda: self.now)
        self.numbers = {}

    @rule(image=st.integers(0, 5), content=st.integers(0, 1))
    def receive(self, image, content):
        key = digest(str(image)), digest(f'{image} {content}')
        study = digest(str(image % 2))
        number = self.queue.add(*key, study)
        assert (number is None) == (key in self.images)
        if number is not None:
            self.images[key] = ['received', 0, self.now]
            self.last[key[0]] = self.last[study] = self.now

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 400.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(how=st.sampled_from(['ok', 'ok', 'skip', 'fail', 'killed', 'full']))
    def predict(self, how):
        image = self.queue.begin_image(QUIET)
        if image is None:
            return
        key = image.instance, image.content
        mine = self.images[key]
        assert mine[0] == 'received'
        mine[1] += 1
        assert image.tries == mine[1] <= TRIES
        if how == 'ok':
            self.queue.predicted(image, [(f'{image.name}.dcm', digest(image.name))], DESTINATIONS)
            mine[0] = 'predicted'
        elif how == 'skip':
            self.queue.skipped(image, 'a hip')
            mine[0] = 'skipped'
        elif how == 'fail':
            assert self.queue.failed(image, 'broken', TRIES) == (mine[1] >= TRIES)
            mine[0] = 'dead' if mine[1] >= TRIES else 'received'
        elif how == 'full':
            self.queue.postponed(image, 10)
            mine[1] -= 1
        else:
            self.reopen()

    @rule()
    def reopen(self):
        self.queue.close()
        self.open()
        for mine in self.images.values():
            if mine[0] == 'received' and mine[1] >= TRIES:
                mine[0] = 'dead'
        self.queue.bury_unfinished(TRIES)

    @rule(destination=st.sampled_from(DESTINATIONS), ok=st.booleans())
    def send(self, destination, ok):
        for delivery in self.queue.due_deliveries(destination, limit=2):
            row = self.queue.rows('SELECT instance, content FROM images WHERE number = ?',
                                  delivery.image)[0]  # fmt: skip
            place = row, destination
            assert place not in self.sent, 'sent again after it was confirmed'
            if ok:
                self.queue.sent(delivery)
                self.sent[place] = 1
            else:
                self.refusals[place] = self.refusals.get(place, 0) + 1
                dead = self.queue.refused(delivery, 'no', TRIES)
                assert dead == (self.refusals[place] >= TRIES)

    @precondition(lambda self: any(m[0] == 'dead' for m in self.images.values()))
    @rule()
    def retry_the_dead(self):
        assert {d.image.partition('-')[0] for d in self.queue.dead() if d.kind == 'image'} == {
            key[0] for key, mine in self.images.items() if mine[0] == 'dead'
        }
        self.queue.retry_dead()
        for mine in self.images.values():
            if mine[0] == 'dead':
                mine[:2] = 'received', 0
        self.refusals = {k: n for k, n in self.refusals.items() if n < TRIES}

    @invariant()
    def nothing_is_lost(self):
        rows = self.queue.rows('SELECT instance, content, state, finished FROM images')
        assert {tuple(row[:2]): row[2] for row in rows} == {k: m[0] for k, m in self.images.items()}
        for *key, state, finished in rows:
            all_sent = all((tuple(key), name) in self.sent for name in DESTINATIONS)
            expected = state == 'skipped' or (state == 'predicted' and all_sent)
            assert (finished is not None) == expected

    def teardown(self):
        """In the end, everything that is not dead gets through."""
        for _ in range(60):
            self.now += 1000
            self.reopen()
            while image := self.queue.begin_image(QUIET):
                self.queue.predicted(image, [(f'{image.name}.dcm', 'x')], DESTINATIONS)
                self.images[image.instance, image.content][0] = 'predicted'
            for name in DESTINATIONS:
                for delivery in self.queue.due_deliveries(name):
                    self.queue.sent(delivery)
        states = {state for (_, _, state), count in self.queue.counts().items() if count}
        assert states <= {'predicted', 'skipped', 'dead', 'sent'}
        assert (self.queue.oldest_waiting() is None) == ('received' not in states)
        self.queue.close()


def test_histories(tmp_path, monkeypatch):
    monkeypatch.setenv('QUEUE_TEST_FOLDER', str(tmp_path))
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=25, stateful_step_count=30, deadline=None)
    )


@pytest.fixture
def queue(tmp_path):
    clock = [1e9]
    queue = Queue(tmp_path / 'queue.sqlite', lambda: clock[0])
    queue.clock = clock
    yield queue
    queue.close()


def test_a_study_is_complete_when_it_has_been_quiet(queue):
    queue.add('a', 'a', 'study')
    queue.add('other', 'other', 'other study')
    queue.clock[0] += 4
    queue.add('b', 'b', 'study')
    assert queue.begin_image(5.0) is None
    queue.clock[0] += 2
    other = queue.begin_image(5.0)
    assert other.instance == 'other'
    queue.predicted(other, [], [])
    queue.clock[0] += 4
    first, second = queue.begin_image(5.0), queue.begin_image(5.0)
    assert {first.instance, second.instance} == {'a', 'b'}
    queue.add('late', 'late', 'study')  # while its study is being predicted
    assert queue.begin_image(5.0) is None
    queue.clock[0] += 6
    queue.predicted(first, [], [])
    queue.predicted(second, [], [])
    assert queue.begin_image(5.0).instance == 'late'


def test_a_study_that_never_gets_quiet_is_predicted_all_the_same(queue):
    begun = []
    for i in range(80):
        queue.add(str(i), str(i), 'study')
        queue.clock[0] += 1
        if image := queue.begin_image(5.0):
            begun.append(image.instance)
    assert begun == [str(i) for i in range(80 - 50)]


def test_a_clock_that_is_set_back_stops_nothing(queue):
    queue.add('a', 'a', 'study')
    queue.clock[0] += 100
    image = queue.begin_image(5.0)
    queue.failed(image, 'broken', 5)
    queue.clock[0] -= 86400
    assert queue.begin_image(5.0).instance == 'a'


def test_a_file_that_kills_the_process_is_tried_a_few_times(queue):
    queue.add('poison', 'poison', 'study')
    queue.clock[0] += 10
    for _ in range(3):
        assert queue.bury_unfinished(3) == []
        assert queue.begin_image(5.0).instance == 'poison'  # and the process is gone
        queue.clock[0] += 1000
    assert queue.bury_unfinished(3) == [1]
    assert queue.begin_image(5.0) is None
    (dead,) = queue.dead()
    assert (dead.tries, dead.reason) == (3, 'the process ended while the image was predicted')
    assert queue.retry_dead() == 1
    assert queue.begin_image(5.0).tries == 1


def test_others_come_before_what_failed(queue):
    queue.add('poison', 'poison', 'study')
    queue.clock[0] += 10
    queue.failed(queue.begin_image(5.0), 'broken', 5)
    queue.add('good', 'good', 'another')
    queue.clock[0] += 10
    assert queue.begin_image(5.0).instance == 'good'


WRITER = """
import itertools, sys
from pneumojax.serving.queue import Queue
queue = Queue(sys.argv[1])
for i in itertools.count(int(sys.argv[2])):
    queue.add(f'{i:08}', 'content', 'study')
    print(i, flush=True)
    image = queue.begin_image(0.0)
    if image:
        queue.predicted(image, [('file', image.instance)], ['archive'])
    for delivery in queue.due_deliveries('archive', 1):
        queue.sent(delivery)
"""


def test_kills(tmp_path):
    """What was said to be in the queue is in it, whenever the process is killed."""
    path, said = tmp_path / 'queue.sqlite', -1
    for round_ in range(8):
        output = tmp_path / f'{round_}.txt'
        with output.open('w') as file:
            child = subprocess.Popen(
                [sys.executable, '-c', WRITER, str(path), str(said + 1)], stdout=file,
                cwd=REPOSITORY,
            )  # fmt: skip
        enough = 3 + 17 * round_
        wait_for(lambda output=output, n=enough: output.read_text().count('\n') >= n, child)
        child.send_signal(signal.SIGKILL)
        child.wait()
        said = max(int(line) for line in output.read_text().split() if line)
        with Queue(path) as queue:
            assert queue.rows('PRAGMA integrity_check') == [('ok',)]
            names = [name for (name,) in queue.rows('SELECT instance FROM images ORDER BY number')]
            assert names[: said + 1] == [f'{i:08}' for i in range(said + 1)]
            assert len(names) <= said + 2  # the last one was not said any more
            said = len(names) - 1


def test_a_damaged_file_and_one_of_a_later_version_are_refused(tmp_path):
    (tmp_path / 'damaged').write_bytes(b'no database' * 1000)
    with pytest.raises(UsageError, match='is damaged'):
        Queue(tmp_path / 'damaged')
    Queue(tmp_path / 'later').close()
    later = sqlite3.connect(tmp_path / 'later')
    later.execute('PRAGMA user_version = 99')
    later.close()
    with pytest.raises(UsageError, match='later version'):
        Queue(tmp_path / 'later')
