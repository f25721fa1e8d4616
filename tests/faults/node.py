"""A node between storescu and Orthanc while both it and the archive are ended again and again.

    python -m tests.faults.node --studies=200 --kills=30
    python -m tests.faults.node --studies=50 --kills=0 --down=0
    python -m tests.faults.node --studies=2000 --kills=0 --down=0 --most=1 --rest=0

The second says how long a result takes, the third how the memory grows. Studies are sent by
storescu, each until storescu says that all of it was taken. In the meantime the node is killed: at
a random moment, or right before it changes a file for the Nth time. In the end the results are read
back by DICOMweb: exactly one for each image, nothing else, and nothing left to do in the queue.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from dicomweb_client import DICOMwebClient

from tests.faults.zygote import Zygote
from tests.fuzz.associations import memory
from tests.serving.dcmtk import find
from tests.serving.files import radiograph
from tests.serving.nodes import Node, to_orthanc
from tests.serving.orthanc import Orthanc, free_ports
from tests.tiny_runs import write_run
from tests.waiting import wait_for

_DOWN_AFTER = 0.3  # of the studies are sent when the archive goes down


class Trial:
    """One run of it all.

    Args:
      options: of the command line.
      root: an empty folder.
    """

    def __init__(self, options: argparse.Namespace, root: pathlib.Path):
        self.options, self.root, self.dice = options, root, random.Random(options.seed)
        self.sent: set[str] = set()  # SOP Instance UIDs of what was confirmed
        self.studies = 0
        self.seconds: list[float] = []
        self.kills: collections.Counter[str] = collections.Counter()
        self.memory: list[tuple[int, int]] = []

    def run(self) -> dict:
        """Figures."""
        (port,) = free_ports(1)
        receive = (
            f'[receive]\nport = {port}\n[[receive.peer]]\nae_title = "STORESCU"\n'
            'addresses = ["127.0.0.1"]\n'
        )
        zygote = Zygote({'JAX_PLATFORMS': 'cpu'})
        run = self.options.run or write_run(self.root / 'run', size=128).path
        (self.root / 'orthanc').mkdir()
        keep = f'quiet_seconds = {self.options.quiet}\nkeep_hours = {self.options.keep}\n'
        with (
            Orthanc(self.root / 'orthanc') as archive,
            Node(self.root / 'node', run, zygote, to_orthanc(archive), receive, keep) as node,
        ):
            self.archive, self.node = archive, node
            node.start()
            threads = [threading.Thread(target=self.send, args=(port,), daemon=True)]
            if self.options.down:
                threads.append(threading.Thread(target=self.take_down, daemon=True))
            for thread in threads:
                thread.start()
            self.kill_until(threads)
            for thread in threads:
                thread.join()
            self.observe()
            wait_for(self.is_done)
            self.observe()
            figures = self.figures()
            assert node.kill(signal.SIGTERM) == 0
        zygote._process.kill()
        return figures

    def send(self, port: int) -> None:
        """A modality that sends one study after the other and does not give up."""
        folder = self.root / 'study'
        folder.mkdir()
        number = 0
        for study in range(self.options.studies):
            datasets = []
            for _ in range(self.dice.randint(1, self.options.most)):
                datasets.append(radiograph(number, study, size=self.options.size))
                number += 1
            paths = [folder / f'{i}.dcm' for i in range(len(datasets))]
            for path, dataset in zip(paths, datasets, strict=True):
                dataset.save_as(path, enforce_file_format=True)
            while subprocess.run(
                [find('storescu') or 'storescu', '-aec', 'PNEUMOJAX', '-to', '5', '-td', '10',
                 '127.0.0.1', str(port), *map(str, paths)], capture_output=True, check=False,
            ).returncode:  # fmt: skip
                time.sleep(0.2)
            self.sent |= {dataset.SOPInstanceUID for dataset in datasets}
            self.studies += 1
            time.sleep(self.options.rest)

    def take_down(self) -> None:
        """The archive is away for a while."""
        wait_for(lambda: self.studies >= _DOWN_AFTER * self.options.studies)
        self.archive.stop()
        print('Orthanc is down', flush=True)
        time.sleep(self.options.down)
        self.archive.start()
        print('Orthanc is up', flush=True)

    def kill_until(self, threads: list[threading.Thread]) -> None:
        """Kills the node so many times, while the studies are sent and after."""
        while self.kills.total() < self.options.kills:
            deadline = time.monotonic() + self.dice.uniform(0.2, 8)
            wait_for(
                lambda deadline=deadline: (
                    time.monotonic() > deadline or self.node.process.poll() is not None
                )
            )
            kind = 'right before a change of a file'
            if self.node.process.poll() is None:
                kind = 'at any time'
            self.node.kill()
            self.kills[kind] += 1
            self.observe()
            at = {}
            if self.dice.random() < 0.5:
                at = {'FAULT_AT': f'{self.dice.randint(1, 150)} {self.node.state}'}
            self.node.start(until='started', **at)
        if self.options.kills:  # the last start may end by itself
            self.node.kill()
            self.observe()
            self.node.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            size = memory(self.node.process.pid)
            self.memory.append((len(self.sent), size))

    def observe(self) -> None:
        """Notes the seconds of the log, which every start empties."""
        self.seconds += [line['seconds'] for line in self.node.events('sent')]

    def is_done(self) -> bool:
        """Whether the node has nothing left to do."""
        assert self.node.process.poll() is None, self.node.log.read_text()[-2000:]
        figures = self.node.get('/metrics')[1]
        return 'state="waiting"' not in figures and 'state="received"' not in figures

    def figures(self) -> dict:
        """What the archive holds, read back by DICOMweb, against what was sent."""
        client = DICOMwebClient(self.archive.web)
        found = collections.Counter()
        for study in client.search_for_studies(fields=['StudyInstanceUID']):
            (uid,) = study['0020000D']['Value']
            for series in client.search_for_series(uid):
                (series_uid,) = series['0020000E']['Value']
                for tags in client.retrieve_series_metadata(uid, series_uid):
                    (referenced,) = tags['00081115']['Value']
                    for image in referenced['0008114A']['Value']:
                        found[image['00081155']['Value'][0]] += 1
        queue = re.findall(r'pneumojax_queue\{(.*)\} (\d+)', self.node.get('/metrics')[1])
        once = sum(found[uid] == 1 for uid in self.sent)
        memories = [size for count, size in self.memory if count > 100]
        return {
            'studies': self.studies, 'images': len(self.sent), 'kills': dict(self.kills),
            'results_once': once, 'results_twice': sum(n > 1 for n in found.values()),
            'missing': sorted(self.sent - set(found)), 'strange': sorted(set(found) - self.sent),
            'queue': dict(queue),
            'seconds_median': round(statistics.median(self.seconds), 2),
            'seconds_worst': round(max(self.seconds), 2),
            'memory_mib': [round(m / 2**20) for m in _quarters(memories)],
        }  # fmt: skip


def _quarters(values: list[int]) -> list[int]:
    """Five of them, from the first to the last."""
    return [values[int(i * (len(values) - 1) / 4)] for i in range(5)] if values else []


def main() -> int:
    """Exit status 1 when a result is missing, double or of nothing that was sent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--studies', type=int, default=200)
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--down', type=float, default=60.0, help='seconds without the archive')
    parser.add_argument('--most', type=int, default=3, help='images of a study')
    parser.add_argument('--rest', type=float, default=1.0, help='seconds between two studies')
    parser.add_argument('--quiet', type=float, default=1.0, help='quiet_seconds of the node')
    parser.add_argument('--keep', type=float, default=24.0, help='keep_hours of the node')
    parser.add_argument('--size', type=int, default=512, help='of an image')
    parser.add_argument('--run', type=pathlib.Path, help='a trained run; default: a tiny one')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='node-') as folder:
        figures = Trial(options, pathlib.Path(folder)).run()
    figures['took'] = round(time.monotonic() - began)
    print(json.dumps(figures), flush=True)
    wrong = figures['missing'] or figures['strange'] or figures['results_twice']
    return bool(wrong or figures['results_once'] != figures['images'])


if __name__ == '__main__':
    os._exit(main())
