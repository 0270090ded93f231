"""The paper's experiments on FreiHAND and HO3D (Tables 2 to 5), for data the user prepared.

Errors in the docstrings are the paper's, in mm (docs/results.md has whole tables, with a column
for ours); before Procrustes where they say so. None of these was run here: the data sets are not
free to pass on. Every docstring ends with the command that launches the experiment, in which `MANO`
is the folder of MANO_RIGHT.pkl and `prepared` that of the prepared data; the runs it starts from
come first. docs/real_data.md has the whole recipe.

Hardware is what we expect to be comfortable, one host in every case. The memory named there was
counted by the compiler for a CPU, parameters and optimizer with it; accelerators differ. With fewer
devices each holds more photos, or `--set training.batch_size=32` halves the batch.
"""

from experiments.configs.freihand import FREIHAND
from experiments.configs.ho3d import HO3D

BENCHMARKS = {**FREIHAND, **HO3D}
