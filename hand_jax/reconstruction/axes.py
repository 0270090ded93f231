"""The axes that mesh files may have."""

from typing import Literal

Axes = Literal['y_up', 'camera']
"""'y_up': y up and z towards the viewer, as GLB has. 'camera': y down and z away."""
