"""The libraries' own talk, kept off the terminal: what matters is said in our words."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

_LIBRARIES = ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers", "trl")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log lines of the training libraries within the block.

    Also asks them, and whatever they start, not to send usage figures.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers  # sets the level of its logger when it is imported

        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers.utils.logging.enable_progress_bar()
