"""A new process that reconstructs one photo, from the start of Python on."""

import subprocess
import sys

from benchmarks.contest import Contest
from hand_jax.data.photos import DEMO_PHOTOS

_PROGRAM = 'import sys, hand_jax; hand_jax.HandReconstructor()(sys.argv[1])'
_IMPORTS = 'import numpy, jax, jax.numpy, flax.linen, cv2; jax.numpy.zeros(1).block_until_ready()'


def cold_start() -> Contest:
  """Compares a whole process with one that only imports the libraries and starts JAX.

  Compiled programs of an earlier process are at hand.
  """

  def run(program: str):
    command = [sys.executable, '-c', program, str(DEMO_PHOTOS / 'nocurl.jpg')]
    return lambda: subprocess.run(command, check=True, capture_output=True)

  return Contest(run(_PROGRAM), {'importing libraries': run(_IMPORTS)})
