"""Sets up every test (two CPU devices, full precision, the free hand) and shares fixtures.

XLA compiles fast instead of well, because nearly all of the tests' time is tracing and compilation.
Processes that tests start do so too, by the environment.
"""

import gc
import os
import pathlib

import cv2
import jax
import numpy as np
import pytest

from hand_jax.mano.assets import load_mano_model
from hand_jax.mano.mano_files import write_converted_mano
from tests.forked_commands import forked_commands
from tests.parameter_shapes import remember_parameter_shapes
from tests.prepared_features import SETTINGS, prepare_featured
from tests.shared_programs import SharedPrograms
from tests.toy_mano import make_toy_mano

# Set these before the first computation, when XLA reads them.
FLAGS = [
  '--xla_backend_optimization_level=0',
  # Programs of a few hundred kernels gain nothing from being split into parts to compile.
  '--xla_cpu_parallel_codegen_split_count=1',
]
if jax.__version_info__[:2] == (0, 10):
  # The new way to emit fused loops takes 40 % of the time left. JAX 0.12 has no other way.
  FLAGS.append('--xla_cpu_use_fusion_emitters=false')
if (0, 10) <= jax.__version_info__[:2] < (0, 13):
  # Commands leave a flag that is named as it is (hand_jax/files/cpu_products.py). Named here, JAX's
  # default stays for this process and for all that tests start, whatever ran before them.
  FLAGS.append('--xla_cpu_experimental_ynn_fusion_type=+individual_dot')
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *FLAGS]).strip()

# The tests use the free hand, whatever the caller's shell names.
os.environ.pop('MANO_DIR', None)
# Commands that tests run as processes keep compiled programs, but not in the user's cache.
os.environ['XDG_CACHE_HOME'] = str(pathlib.Path(__file__).parent.parent / '.jax_cache' / 'user')

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
# Each worker of pytest-xdist has its own programs, and shares them with the others after each file.
PROGRAMS = SharedPrograms(
  pathlib.Path(__file__).parent.parent / '.jax_cache', os.environ.get('PYTEST_XDIST_WORKER', 'main')
)
jax.config.update('jax_compilation_cache_dir', str(PROGRAMS.folder))
# Reading a program takes a few hundredths of a second.
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)

remember_parameter_shapes()

# Tracing makes many objects that live long. At Python's thresholds, looking for cycles among them
# takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)


def pytest_collection_finish():
  """Excludes the objects of imports and collection from all later garbage collections."""
  gc.collect()
  gc.freeze()


def pytest_sessionfinish():
  """Excludes all objects from pytest's five last garbage collections, which would take seconds."""
  gc.freeze()


def pytest_collection_modifyitems(config, items):
  """Leaves out the tests of faults, unless -m asks for them, and orders the files.

  Files with slow tests come before the others, so that two processes end at about one time.
  """
  if 'faults' not in config.option.markexpr:
    left_out = [item for item in items if item.get_closest_marker('faults')]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
  files = {item.path for item in items if item.get_closest_marker('slow')}
  items.sort(key=lambda item: item.path not in files)


@pytest.fixture(scope='module', autouse=True)
def shared_programs():
  """Makes compiled programs of one file's tests available to later files, in any process."""
  PROGRAMS.exchange()
  yield
  PROGRAMS.exchange()


@pytest.fixture(scope='session')
def model():
  """Loads the free right hand."""
  return load_mano_model()


@pytest.fixture(scope='session')
def toy_model():
  """Makes the toy hand, which has pose blend shapes, unlike the free hand."""
  return make_toy_mano()


@pytest.fixture(scope='session')
def mano_dir(model, tmp_path_factory):
  """Makes a folder that holds the free hand as if it were the user's MANO."""
  folder = tmp_path_factory.mktemp('mano')
  arrays = {name: np.asarray(value) for name, value in model._asdict().items()}
  write_converted_mano(folder / 'MANO_RIGHT.npz', arrays, 'right')
  return str(folder)


@pytest.fixture(scope='session')
def photo():
  """Draws an image of smooth colours, 120 pixels wide and 90 high."""
  drawn = np.random.default_rng(0).uniform(0, 255, (9, 12, 3)).astype(np.float32)
  smooth = np.clip(cv2.resize(drawn, (120, 90), interpolation=cv2.INTER_CUBIC), 0, 255)
  smooth = smooth.astype(np.uint8)
  smooth.flags.writeable = False  # tests share it
  return smooth


@pytest.fixture(scope='module')
def small_pictures():
  """Reduces pictures to a 25th of the pixels, because unoptimised programs are slow."""
  from hand_jax.reconstruction import views  # few tests need it

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(views, 'PANEL_SIDE', 96)
    yield


@pytest.fixture
def float64():
  """Lets a test compute in double precision."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def no_progress_bars():
  """Keeps TensorFlow Datasets from drawing its progress while it writes."""
  import tensorflow_datasets as tfds  # few tests need it, and it takes long to import

  tfds.disable_progress_bar()


@pytest.fixture(scope='session')
def featured(toy_model, tmp_path_factory):
  """Prepares drawn hands with the landmark network's features."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  settings = {'crop_features': SETTINGS.as_manifest()}
  return prepare_featured(tmp_path_factory.mktemp('featured'), toy_model, **settings)


@pytest.fixture(scope='session')
def run_command():
  """Runs a command of this package by the name of its module, as a process that starts at once."""
  with forked_commands() as run:
    yield run
