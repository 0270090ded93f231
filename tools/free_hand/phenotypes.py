"""Makes random adults from MPFB2's macro targets, at the vertices of the hand only."""

import dataclasses
import itertools

import numpy as np

from tools.free_hand.reading import TargetReader

_MUSCLE = ('minmuscle', 'averagemuscle', 'maxmuscle')
_WEIGHT = ('minweight', 'averageweight', 'maxweight')


@dataclasses.dataclass(frozen=True)
class Phenotype:
  """The settings of a person: macro settings in [0, 1], ancestry shares and settings of the hand.

  An age of 0 is young and 1 is old. `local` maps scale, fingers-diameter, fingers-length and
  fingers-distance to [-1, 1].
  """

  gender: float = 0.5
  age: float = 0.2
  muscle: float = 0.5
  weight: float = 0.5
  height: float = 0.5
  proportions: float = 0.5
  ancestry: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
  local: tuple[tuple[str, float], ...] = ()


def sample_phenotype(random: np.random.RandomState) -> Phenotype:
  """Draws one random adult.

  The height varies little, because its targets alone make hands of 10 to 26 cm.
  """
  ancestry = random.exponential(size=3)
  deviations = (
    ('scale', 0.15),
    ('fingers-diameter', 0.35),
    ('fingers-length', 0.3),
    ('fingers-distance', 0.3),
  )
  return Phenotype(
    gender=random.uniform(),
    age=random.uniform() ** 2,
    muscle=random.uniform(),
    weight=random.uniform(),
    height=float(np.clip(0.5 + 0.12 * random.normal(), 0.0, 1.0)),
    proportions=random.uniform(),
    ancestry=tuple(ancestry / ancestry.sum()),
    local=tuple((k, float(np.clip(s * random.normal(), -1.0, 1.0))) for k, s in deviations),
  )


def _three_way(value: float) -> tuple[float, float, float]:
  """Returns the shares of minimum, average and maximum for a setting in [0, 1]."""
  return max(0.0, 1 - 2 * value), 1 - abs(2 * value - 1), max(0.0, 2 * value - 1)


def weighted_targets(phenotype: Phenotype) -> list[tuple[str, float]]:
  """Lists names of targets with their weights, which are products of the shares of their macros."""
  result = []
  genders = (('female', 1 - phenotype.gender), ('male', phenotype.gender))
  ages = (('young', 1 - phenotype.age), ('old', phenotype.age))
  ancestries = zip(('african', 'asian', 'caucasian'), phenotype.ancestry, strict=True)
  ancestries = tuple(ancestries)
  bulks = tuple(
    (f'{m}-{w}', share_m * share_w)
    for (m, share_m), (w, share_w) in itertools.product(
      zip(_MUSCLE, _three_way(phenotype.muscle), strict=True),
      zip(_WEIGHT, _three_way(phenotype.weight), strict=True),
    )
  )
  heights = (('minheight', 1 - phenotype.height), ('maxheight', phenotype.height))
  ideals = (
    ('idealproportions', phenotype.proportions),
    ('uncommonproportions', 1 - phenotype.proportions),
  )
  for (gender, share_g), (age, share_a) in itertools.product(genders, ages):
    share = share_g * share_a
    for name, part in ancestries:
      result.append((f'macrodetails/{name}-{gender}-{age}', share * part))
    for bulk, part in bulks:
      stem = f'{gender}-{age}-{bulk}'
      result.append((f'macrodetails/universal-{stem}', share * part))
      for folder, settings in (('height', heights), ('proportions', ideals)):
        for name, extra in settings:
          result.append((f'macrodetails/{folder}/{stem}-{name}', share * part * extra))
  for name, value in phenotype.local:
    direction = 'incr' if value > 0 else 'decr'
    result.append((f'hands/r-hand-{name}-{direction}', abs(value)))
  return [(name, weight) for name, weight in result if weight > 0]


def shape_vertices(base: np.ndarray, targets: TargetReader, phenotype: Phenotype) -> np.ndarray:
  """Displaces the base vertices by the targets of a phenotype.

  Args:
    base: (N, 3) decimetres, at the vertices of `targets`.
    targets: reads displacements by the name of a target.
    phenotype: the settings of the person.
  """
  vertices = base.copy()
  for name, weight in weighted_targets(phenotype):
    displacement = targets(name)
    if displacement is not None:
      vertices += weight * displacement
  return vertices
