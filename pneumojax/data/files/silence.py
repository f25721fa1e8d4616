"""Silences the warnings of DICOM libraries, which quote what they read."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import pydicom


@contextlib.contextmanager
def silence_libraries() -> Iterator[None]:
    """Keeps warnings about headers, which name patients, out of logs and streams.

    Also a decorator. The settings are those of the process, so threads are silenced too.
    """
    loggers = [logging.getLogger(name) for name in ('pydicom', 'highdicom', 'pylibjpeg')]
    levels = [logger.level for logger in loggers]
    validation = pydicom.config.settings.reading_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            pydicom.config.settings.reading_validation_mode = validation
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
