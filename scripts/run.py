"""Set this checkout up if need be, then do what `finetune run` does.

usage: python3 scripts/run.py [--torch auto|cpu|cuda] RECIPE [what `finetune run` takes]…

The environment is made in `.venv` at the root of the checkout. A CPU build of torch is taken
unless a GPU is seen. Any other command: `.venv/bin/finetune COMMAND`.
"""

import os
import sys

import environment

if len(sys.argv) == 1:
    print(__doc__, file=sys.stderr)
    sys.exit(2)
python, arguments = environment.enter()
# -P: the folder this is called from may hold a `finetune` of its own.
os.execv(python, [python, "-P", "-m", "finetune", "run", *arguments])
