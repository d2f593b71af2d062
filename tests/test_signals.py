import os
import signal
import subprocess
import sys
import threading

import pytest

from finetune.errors import Interrupted
from finetune.signals import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_block_whatever_catches_exceptions(number):
    """As libraries do around what they can do without, while they are imported."""
    before, went_on = signal.getsignal(number), False
    with (
        pytest.raises(Interrupted, match="here: interrupted") as caught,
        interruptible("here: interrupted", hint="again"),
    ):
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except Exception:  # noqa: BLE001 (what is tested)
            went_on = True
    assert not went_on
    assert (caught.value.exit_code, caught.value.hint) == (128 + number, "again")
    assert signal.getsignal(number) is before


TWICE = """
import os, signal
from finetune.signals import interruptible
with interruptible("interrupted"):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        print("went on")
"""


def test_the_second_signal_ends_the_process():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_in_another_thread_signals_are_somebody_elses():
    done = []

    def work():
        with interruptible("interrupted"):
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGTERM)]
