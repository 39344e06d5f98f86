"""The process beside each attempt: started as a script, it leaves its starter's side and tends the run to its end.

Run as `python -I -S -E runner.py <attempt folder> <ready descriptor>`. It stays this short because a script is compiled
anew each time, while what it imports is kept compiled.
"""

import os
import sys

if os.fork():
    os._exit(0)
sys.path.append(os.path.abspath(__file__ + "/../../../../.."))

from haein.cluster.backends.local import tending

tending.tend(sys.argv[1], int(sys.argv[2]))
