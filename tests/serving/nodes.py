"""The node as a process of its own, killed and started again at will."""

import json
import os
import pathlib
import signal
import urllib.error
import urllib.request

from pynetdicom import AE

from tests.faults.zygote import Zygote
from tests.waiting import PATIENCE, wait_for


class Node:
    """A context in which a node may run.

    Args:
      folder: of its settings, its log and its state.
      run: directory of the trained run.
      zygote: what starts processes quickly.
      send: tables [[send]], as text of TOML.
      rest: further tables, in place of a C-STORE SCP on any free port.
      node: keys of the table [node].
      arguments: further flags.
    """

    def __init__(self, folder, run, zygote: Zygote, send, rest=None, node='', arguments=()):
        self.folder, self.zygote = pathlib.Path(folder), zygote
        self.folder.mkdir(exist_ok=True)
        self.state, self.log = self.folder / 'state', self.folder / 'log'
        receive = (
            '[receive]\nport = 0\n[[receive.peer]]\nae_title = "STORESCU"\n'
            'addresses = ["127.0.0.1"]\n'
        )
        if 'quiet_seconds' not in node:
            node += '\nquiet_seconds = 0.2'
        (self.folder / 'node.toml').write_text(
            f'[node]\nfree_mb = 0\n{node}\n'
            f'[health]\nport = 0\n{receive if rest is None else rest}\n{send}\n'
        )
        self.arguments = [
            '--mode=serve', f'--workdir={run}', f'--node={self.folder / "node.toml"}',
            f'--output={self.state}', *arguments,
        ]  # fmt: skip
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)

    def start(self, *, until='ready', **variables):
        """Starts it and waits for a line of its log, or for the end that the variables ask for."""
        self.log.write_text('')
        self.process = self.zygote.start(
            arguments=self.arguments, variables=variables, folder=str(self.folder),
            log=str(self.log),
        )  # fmt: skip
        wait_for(lambda: self.events(until) or self.process.poll() is not None)
        if self.process.poll() is not None:
            # With $FAULT_AT, it may have been killed by now.
            assert 'FAULT_AT' in variables, self.log.read_text()
            return
        started = self.events('started')[0]
        self.port, self.health_port = started['dicom_port'], started['health_port']

    def kill(self, signum=signal.SIGKILL):
        """Sends a signal and waits for the end; returns the status."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signum)
        return self.process.wait(PATIENCE)

    def events(self, name=None):
        """Lines of the log since the last start, as objects."""
        text = self.log.read_text()
        whole = text[: text.rfind('\n') + 1].splitlines()
        assert all(line.startswith('{') for line in whole), text
        lines = [json.loads(line) for line in whole]
        return [line for line in lines if name in (None, line['event'])]

    def store(self, *datasets):
        """Sends images in one association; returns those that were confirmed."""
        ae = AE('STORESCU')
        for one in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
            ae.add_requested_context(one[0], [one[1]])
        association = ae.associate('127.0.0.1', self.port, ae_title='PNEUMOJAX')
        confirmed = []
        if association.is_established:
            for dataset in datasets:
                try:
                    if association.send_c_store(dataset).get('Status') == 0:
                        confirmed.append(dataset)
                except RuntimeError:  # the node is gone
                    break
            association.release()
        return confirmed

    def get(self, path):
        """(HTTP status, text) of the health server."""
        try:
            url = f'http://127.0.0.1:{self.health_port}{path}'
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def to_orthanc(orthanc):
    """A table [[send]] for C-STORE."""
    return (
        '[[send]]\nname = "archive"\nhost = "127.0.0.1"\nae_title = "ORTHANC"\n'
        f'port = {orthanc.dicom_port}\ntimeout_seconds = 5\n'
    )
