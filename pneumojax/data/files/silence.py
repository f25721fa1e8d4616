"""DICOM libraries kept from talking about what they read: their warnings quote it."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import pydicom


@contextlib.contextmanager
def silence_libraries() -> Iterator[None]:
    """No warning about a foreign header reaches log or stream: headers name patients.

    Also a decorator. What is set is the process's, so threads started inside are quiet too.
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
