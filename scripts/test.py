"""Set this checkout up if need be, then run the whole test suite.

usage: python3 scripts/test.py [--torch auto|cpu|cuda] [what pytest takes]…
"""

import os

import environment

python, arguments = environment.enter()
# One process a core with one thread each: faster here than one process with many, and sums come
# out in the same order everywhere. The tests of a file run in one process, in one order (loadfile),
# so that what they share never depends on how long something takes.
workers = str(min(os.cpu_count() or 1, 8))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.chdir(environment.ROOT)
share = ["-n", workers, "--dist", "loadfile", "--no-loadscope-reorder"]
os.execv(python, [python, "-m", "pytest", *share, *arguments])
