"""A tfds builder that writes its records as they come, whatever their number."""

import itertools

import tensorflow_datasets as tfds

# A file of the largest records (photos of 640 x 480 as PNG) is then about 2 GB.
EXAMPLES_PER_FILE = 4096
# Written at a time; tfds writes its description of the data set anew each time.
_BLOCK = 64


class StreamedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder of splits `{name: iterator of (number, record)}` in the order of their numbers.

  tfds' own way is to sort each split first: in memory, and from 1 GB on with TensorFlow.
  """

  def download_and_prepare(self, **kwargs) -> None:
    """Writes all splits into the builder's folder, which is no data set before this is done."""
    del kwargs  # nothing is downloaded
    if self.data_path.exists():
      return
    self.data_path.mkdir(parents=True)
    writer = tfds.core.SequentialWriter(self.info, EXAMPLES_PER_FILE, file_format='array_record')
    splits = self._split_generators(None)
    writer.initialize_splits(list(splits))
    for split, records in splits.items():
      while block := [record for _, record in itertools.islice(records, _BLOCK)]:
        writer.add_examples({split: block})
      writer.close_splits([split])
