"""Published figures of TPUs, and the roofline estimate of a step's time that they allow."""

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
  """What a chip can send to its neighbours in a second, over all its links."""


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
  """The least times of one step in milliseconds: the step cannot be faster than the longest."""

  compute_ms: float
  memory_ms: float
  network_ms: float

  @property
  def step_ms(self) -> float:
    """Estimates the step: memory or arithmetic, whichever is longer, then the all-reduce."""
    return max(self.compute_ms, self.memory_ms) + self.network_ms


def estimate_roofline(
  accelerator: Accelerator,
  flops: float,
  bytes_accessed: float,
  reduced_bytes: float,
  devices: int,
  devices_per_chip: int = 1,
) -> Roofline:
  """Estimates the least time of a step from what its compiled program does.

  It takes peak figures, full overlap of arithmetic and memory, and none of either with the
  all-reduce. Real steps take longer.

  Args:
    accelerator: the kind of chip.
    flops: arithmetic operations of one device.
    bytes_accessed: bytes that one device reads and writes.
    reduced_bytes: bytes of the gradients and statistics that devices average.
    devices: number of devices.
    devices_per_chip: v4 chips count as two devices, which share the chip's figures.
  """
  # A ring sends every byte twice, but for one device's share.
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
