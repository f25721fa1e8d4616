"""Shows DICOM files in OHIF, in headless Chromium beside Orthanc, all of it on this machine.

Not part of the suite, as OHIF has 200 MB. What came out is in docs/reference/viewers.md.

    npm pack @ohif/app@3.13.2 && tar xzf ohif-app-3.13.2.tgz
    python -m tests.viewers.ohif package/dist FOLDER OUTPUT

FOLDER holds studies: radiographs and what was made of them. OUTPUT receives two pictures of each
study, before and after its objects are opened, and what the page wrote to its console.
"""

import contextlib
import functools
import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pydicom

PLUGIN = '/usr/share/orthanc/plugins/libOrthancDicomWeb.so'
CONFIG = """window.config = {
  routerBasename: null, extensions: [], modes: [], showStudyList: true, maxNumberOfWebWorkers: 1,
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false,
  investigationalUseDialog: {option: 'never'}, defaultDataSourceName: 'here',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'here',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/wado', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, bulkDataURI: {enabled: true, relativeResolution: 'studies'},
      omitQuotationForMultipartRequest: true,
    },
  }],
};
"""
PATIENCE = 90.0  # seconds


@contextlib.contextmanager
def orthanc(files: list[pathlib.Path]) -> Iterator[int]:
    """An Orthanc with DICOMweb that holds the files; yields its port."""
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        config = {
            'HttpPort': port, 'RemoteAccessAllowed': False, 'AuthenticationEnabled': False,
            'DicomServerEnabled': False, 'StorageDirectory': folder, 'IndexDirectory': folder,
            'Plugins': [PLUGIN], 'DicomWeb': {'Enable': True, 'Root': '/dicom-web/'},
        }  # fmt: skip
        path = pathlib.Path(folder) / 'orthanc.json'
        path.write_text(json.dumps(config))
        log = open(pathlib.Path(folder) / 'log', 'wb')  # noqa: SIM115
        process = subprocess.Popen(['Orthanc', path], stdout=log, stderr=log)
        try:
            url = f'http://127.0.0.1:{port}'
            _wait_for(lambda: urllib.request.urlopen(f'{url}/system').status == 200)
            for file in files:
                request = urllib.request.Request(f'{url}/instances', file.read_bytes())
                urllib.request.urlopen(request).read()
            yield port
        finally:
            process.terminate()
            process.wait()


class _Handler(http.server.SimpleHTTPRequestHandler):
    """OHIF's files, and Orthanc's answers below /dicom-web as if from the same server."""

    archive: int

    def do_GET(self) -> None:
        """Answers the browser."""
        path = self.path.partition('?')[0]
        if path == '/app-config.js':
            self._answer(200, {'Content-Type': 'text/javascript'}, CONFIG.encode())
        elif path.startswith('/dicom-web'):
            self._forward()
        else:
            if not pathlib.Path(self.directory, path.lstrip('/')).is_file():
                self.path = '/index.html'  # the page reads the rest of the address itself
            super().do_GET()

    def _forward(self) -> None:
        headers = {'Accept': self.headers.get('Accept', '*/*')}
        url = f'http://127.0.0.1:{self.archive}{self.path}'
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
                headers = {'Content-Type': reply.headers['Content-Type']}
                self._answer(200, headers, reply.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, {}, error.read())

    def _answer(self, status: int, headers: dict, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        """With what Chromium needs for shared memory."""
        self.send_header('Cross-Origin-Opener-Policy', 'same-origin')
        self.send_header('Cross-Origin-Embedder-Policy', 'require-corp')
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def site(dist: pathlib.Path, archive: int) -> Iterator[str]:
    """Serves OHIF; yields its address."""
    handler = type('Handler', (_Handler,), {'archive': archive})
    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(handler, directory=str(dist))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless browser that draws with WebGL in software."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which('chromium')
        for argument in (
            'headless=new', 'no-sandbox', 'no-first-run', 'disable-background-networking',
            'disable-component-update', 'disable-sync', 'window-size=1400,1000',
            'use-gl=angle', 'use-angle=swiftshader', 'enable-unsafe-swiftshader',
            'ignore-gpu-blocklist', f'user-data-dir={profile}',
        ):  # fmt: skip
            options.add_argument(f'--{argument}')
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        service = webdriver.chrome.service.Service(shutil.which('chromedriver'))
        browser = webdriver.Chrome(options=options, service=service)
        try:
            yield browser
        finally:
            browser.quit()


def show(browser, address: str, study: str, output: pathlib.Path) -> None:
    """Opens a study, then each of its objects by a double click in the list of series."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser.get(f'{address}/viewer?StudyInstanceUIDs={study}')
    _wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, 'canvas'))
    _settle(browser)
    _click(browser, 'Skip all')  # the guided tour
    browser.save_screenshot(str(output / f'{study}-0.png'))
    count = len(browser.find_elements(By.CSS_SELECTOR, '[data-cy^="study-browser-thumbnail"]'))
    for i in range(count):
        thumbnails = browser.find_elements(By.CSS_SELECTOR, '[data-cy^="study-browser-thumbnail"]')
        if i >= len(thumbnails):
            break
        ActionChains(browser).double_click(thumbnails[i]).perform()
        _settle(browser)
        _click(browser, 'Yes')  # it asks whether to open a segmentation
        browser.save_screenshot(str(output / f'{study}-{i + 1}.png'))
    lines = [f'{entry["level"]} {entry["message"]}' for entry in browser.get_log('browser')]
    (output / f'{study}.log').write_text('\n'.join(lines))


def _click(browser, words: str) -> None:
    """Clicks what says so, if it is there, and waits."""
    for button in browser.find_elements('xpath', f"//*[text()='{words}']"):
        browser.execute_script('arguments[0].click()', button)
        _settle(browser)


def _settle(browser) -> None:
    """Waits until three pictures, a second apart, are the same."""
    end, last, same = time.monotonic() + 30, b'', 0
    while same < 3 and time.monotonic() < end:
        time.sleep(1)
        now = browser.get_screenshot_as_png()
        same, last = (same + 1 if now == last else 0), now


def _wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def main(dist: str, folder: str, output: str) -> None:
    """Shows every study of a folder."""
    files = sorted(path for path in pathlib.Path(folder).rglob('*.dcm'))
    studies = {pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in files}
    out = pathlib.Path(output)
    out.mkdir(parents=True, exist_ok=True)
    with orthanc(files) as port, site(pathlib.Path(dist), port) as address, chromium() as browser:
        for study in sorted(studies):
            show(browser, address, study, out)


if __name__ == '__main__':
    main(*sys.argv[1:])
