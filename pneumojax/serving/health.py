"""Tells a monitor how the node is, over HTTP: /healthz, /readyz and figures at /metrics.

/healthz is 200 as long as every part runs; a service manager may restart the node when it is not.
/readyz is 200 when images are taken up: the network is loaded and the disk has room.
"""

import bisect
import http.server
import json
import threading
from collections.abc import Callable, Mapping

from pneumojax.errors import UsageError
from pneumojax.serving.settings import Health

_COUNTERS = {
    'objects_new': 'Objects received that were new.',
    'objects_duplicate': 'Objects received that had been received before.',
    'objects_own_result': 'Objects received that are results of this program, and ignored.',
    'objects_refused': 'Objects that were answered with a failure.',
    'associations_refused': 'Associations of peers that are not listed.',
    'images_predicted': 'Images predicted.',
    'images_skipped': 'Images that are no radiographs.',
    'predictions_failed': 'Attempts to predict an image that failed.',
    'results_sent': 'Results that a destination confirmed.',
    'sending_failed': 'Attempts to send results that failed.',
    'polls': 'Times that the archive was asked.',
    'polls_failed': 'Times that the archive did not answer as it should.',
}
_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)  # seconds


class Figures:
    """What happened since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._seconds, self._sum = [0] * (len(_BUCKETS) + 1), 0.0

    def count(self, name: str) -> None:
        """Adds one to a counter."""
        with self._lock:
            self._counts[name] += 1

    def observe(self, seconds: float) -> None:
        """Notes how long it took from the reception of an image to its result in the archive."""
        with self._lock:
            self._seconds[bisect.bisect_left(_BUCKETS, seconds)] += 1
            self._sum += seconds

    def text(
        self,
        gauges: Mapping[str, float],
        reachable: Mapping[str, bool],
        queue: Mapping[tuple[str, str, str], int],
    ) -> str:
        """Prometheus' text format.

        Args:
          gauges: further figures of now.
          reachable: by name, the archives that are asked or sent to.
          queue: see `Queue.counts`.
        """
        lines = []
        with self._lock:
            for name, value in self._counts.items():
                lines += _metric(f'{name}_total', 'counter', _COUNTERS[name], {'': value})
            name = 'pneumojax_seconds_to_archive'
            lines += [
                f'# HELP {name} From the reception of an image to a confirmed result.',
                f'# TYPE {name} histogram',
            ]
            total = 0
            for limit, count in zip((*_BUCKETS, '+Inf'), self._seconds, strict=True):
                total += count
                lines.append(f'{name}_bucket{{le="{limit}"}} {total}')
            lines += [f'{name}_sum {self._sum}', f'{name}_count {total}']
        labels = {
            f'{{kind="{kind}",destination="{destination}",state="{state}"}}': count
            for (kind, destination, state), count in queue.items()
        }
        lines += _metric('queue', 'gauge', 'What the queue holds.', labels)
        labels = {f'{{archive="{name}"}}': int(is_so) for name, is_so in reachable.items()}
        lines += _metric('reachable', 'gauge', 'Whether an archive answered last.', labels)
        for name, gauge in gauges.items():
            lines += _metric(name, 'gauge', name.replace('_', ' ').capitalize() + '.', {'': gauge})
        return '\n'.join(lines) + '\n'


class HealthServer:
    """Answers in threads of its own until it is stopped.

    Args:
      settings: the table [health].
      problems: what is wrong with the node, for /healthz.
      obstacles: why no images are taken up now, for /readyz.
      metrics: the text for /metrics.

    Raises:
      UsageError: the address cannot be bound.
    """

    def __init__(
        self,
        settings: Health,
        problems: Callable[[], list[str]],
        obstacles: Callable[[], list[str]],
        metrics: Callable[[], str],
    ):
        def state(found: list[str]) -> tuple[int, str, str]:
            answer = json.dumps({'ok': not found, 'why': found}) + '\n'
            return 503 if found else 200, 'application/json', answer

        pages = {
            '/healthz': lambda: state(problems()),
            '/readyz': lambda: state([*problems(), *obstacles()]),
            '/metrics': lambda: (200, 'text/plain; version=0.0.4', metrics()),
        }

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10.0

            def do_GET(self) -> None:
                page = pages.get(self.path)
                status, kind, text = page() if page else (404, 'text/plain', 'not found\n')
                body = text.encode()
                self.send_response(status)
                self.send_header('Content-Type', kind)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        try:
            self._server = _Server((settings.host, settings.port), Handler)
        except OSError as error:
            raise UsageError(
                f'--node: cannot listen on health.host {settings.host}, port {settings.port}: '
                f'{error.strerror}'
            ) from None
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={'poll_interval': 0.1}, daemon=True
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answers no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is nothing to print."""


def _metric(name: str, kind: str, text: str, values: Mapping[str, float]) -> list[str]:
    name = f'pneumojax_{name}'
    return [
        f'# HELP {name} {text}',
        f'# TYPE {name} {kind}',
        *(f'{name}{labels} {value}' for labels, value in values.items()),
    ]
