"""Runs the installed command without its script: `python -m hand_jax`."""

import sys

from hand_jax.commands.main import main

if __name__ == '__main__':
  sys.exit(main())
