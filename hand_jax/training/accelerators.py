"""Lists published figures of TPUs, and estimates the time of a step from them (roofline)."""

from typing import NamedTuple

GIBIBYTE = 2**30


class Accelerator(NamedTuple):
  """A kind of TPU chip, by Google's published figures per chip (cloud.google.com/tpu/docs)."""

  name: str
  hbm_bytes: int
  """High-bandwidth memory, of which the system keeps a small part."""
  bfloat16_flops: float
  """Peak multiplications and additions a second. XLA multiplies float32 in bfloat16 by default."""
  hbm_bytes_per_second: float
  link_bytes_per_second: float
  """Bytes that a chip can send to its neighbours in a second, over all its links."""


ACCELERATORS = {
  kind.name: kind
  for kind in (
    Accelerator('v4', 32 * GIBIBYTE, 275e12, 1228e9, 300e9),
    Accelerator('v5e', 16 * GIBIBYTE, 197e12, 819e9, 200e9),
    Accelerator('v5p', 95 * GIBIBYTE, 459e12, 2765e9, 600e9),
    Accelerator('v6e', 32 * GIBIBYTE, 918e12, 1640e9, 448e9),
  )
}


class Roofline(NamedTuple):
  """The least times of one step in milliseconds. The step cannot be faster than the longest."""

  compute_ms: float
  memory_ms: float
  network_ms: float

  @property
  def step_ms(self) -> float:
    """Adds the time of the all-reduce to the longer of the times of memory and arithmetic."""
    return max(self.compute_ms, self.memory_ms) + self.network_ms


def estimate_roofline(
  accelerator: Accelerator,
  flops: float,
  bytes_accessed: float,
  reduced_bytes: float,
  devices: int,
  devices_per_chip: int = 1,
) -> Roofline:
  """Estimates the least time of a step from the figures of its compiled program.

  It uses peak rates, lets arithmetic and memory overlap fully, and assumes that the all-reduce
  overlaps with neither. Real steps take longer.

  Args:
    accelerator: the kind of chip.
    flops: arithmetic operations of one device in one step.
    bytes_accessed: bytes that one device reads and writes in one step.
    reduced_bytes: bytes of the gradients and statistics that devices average in one step.
    devices: number of devices.
    devices_per_chip: number of devices that share the figures of one chip.
  """
  # In a ring each device sends every byte twice, except the share of one device.
  sent = 2 * reduced_bytes * (devices - 1) / devices
  compute, memory, network = (
    1e3 * devices_per_chip * amount / rate
    for amount, rate in (
      (flops, accelerator.bfloat16_flops),
      (bytes_accessed, accelerator.hbm_bytes_per_second),
      (sent, accelerator.link_bytes_per_second),
    )
  )
  return Roofline(compute, memory, network)
