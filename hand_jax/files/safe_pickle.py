"""Reads pickles safely, by an interpreter of the format that only builds data.

Python's own unpickler calls any function that a file names. This interpreter cannot call anything.
A name becomes a `Global` and a call becomes a `Node`, which hold data alone. In the end
`pickled_objects` turns both into arrays for a short list of names: NumPy arrays, SciPy's sparse
matrices and chumpy's values. Any other name is refused. The reader is made for MANO's model files
and HO3D's annotations, which Python 2 wrote, and it reads protocols 0 to 5.
"""

import ast
import os
import pathlib
import re
import struct
from collections.abc import Callable
from typing import Any

from hand_jax.files.other_kinds import other_kind
from hand_jax.files.pickled_objects import (
  Global,
  Node,
  UnsafePickleError,
  call_global,
  check_keys,
  find_global,
  resolve,
)

MAX_BYTES = 256 * 1024 * 1024
_MARK = object()
# Matches exactly one quoted string, so that no other Python literal is evaluated.
_LITERAL = re.compile(rb"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


def load_pickle(path: str | os.PathLike) -> Any:
  """Reads a pickle file that holds dicts, lists, tuples, text, numbers and NumPy arrays.

  Byte strings of Python 2 become Latin-1 text, and sparse matrices become dense arrays.

  Raises:
    FileNotFoundError: the file does not exist.
    UnsafePickleError: the file is too large, not a pickle or cut short, or it holds something that
      is not data.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file')
  if path.stat().st_size > MAX_BYTES:
    raise UnsafePickleError(f'{path}: larger than {MAX_BYTES} bytes, not a file this reader is for')
  return loads(path.read_bytes(), str(path))


def loads(data: bytes, name: str = 'pickle') -> Any:
  """Reads a pickle from memory as `load_pickle` does. Every error message begins with `name`.

  Raises:
    UnsafePickleError: the data is not a pickle or cut short, or it holds something that is not
      data.
  """
  if (what := other_kind(data)) is not None:
    raise UnsafePickleError(f'{name}: {what}, not a pickle')
  try:
    return resolve(PickleInterpreter(data).run())
  except UnsafePickleError as error:
    raise UnsafePickleError(f'{name}: {error}') from None
  except (ArithmeticError, LookupError, MemoryError, RecursionError) as error:
    raise UnsafePickleError(f'{name}: damaged pickle ({error})') from None
  except (AttributeError, SyntaxError, TypeError, ValueError) as error:
    raise UnsafePickleError(f'{name}: damaged pickle ({error})') from None


class _Reader:
  """Reads bytes from a position on, and never past their end."""

  def __init__(self, data: bytes, position: int):
    self.data = data
    self.position = position

  def take(self, count: int) -> bytes:
    end = self.position + count
    if count < 0 or end > len(self.data):
      raise UnsafePickleError(f'cut short, or not a pickle (at byte {self.position})')
    chunk = self.data[self.position : end]
    self.position = end
    return chunk

  def line(self) -> bytes:
    end = self.data.find(b'\n', self.position)
    if end < 0:
      raise UnsafePickleError(f'cut short, or not a pickle (at byte {self.position})')
    return self.take(end + 1 - self.position)[:-1]

  def number(self, layout: str) -> int | float:
    return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

  def counted(self, layout: str) -> bytes:
    """Reads a length, and then that many bytes."""
    return self.take(int(self.number(layout)))


def _text_integer(line: bytes) -> int | bool:
  # Protocol 0 writes booleans as these integers.
  if line in (b'00', b'01'):
    return line == b'01'
  return int(line.rstrip(b'L'))


def _quoted(line: bytes) -> str:
  """Reads a Python 2 string literal as Latin-1."""
  if not _LITERAL.fullmatch(line):
    raise UnsafePickleError('damaged pickle (a string without quotes)')
  value = ast.literal_eval('b' + line.decode('ascii'))
  return value.decode('latin1')


def _utf8(data: bytes) -> str:
  return data.decode('utf-8', 'surrogatepass')


def _integer(data: bytes) -> int:
  return int.from_bytes(data, 'little', signed=True)


# For each opcode that pushes a constant, a function that reads the constant.
_CONSTANTS: dict[bytes, Callable[[_Reader], Any]] = {
  b'N': lambda reader: None,
  b'\x88': lambda reader: True,
  b'\x89': lambda reader: False,
  b'I': lambda reader: _text_integer(reader.line()),
  b'L': lambda reader: _text_integer(reader.line()),
  b'F': lambda reader: float(reader.line()),
  b'J': lambda reader: reader.number('<i'),
  b'K': lambda reader: reader.number('<B'),
  b'M': lambda reader: reader.number('<H'),
  b'G': lambda reader: reader.number('>d'),
  b'\x8a': lambda reader: _integer(reader.counted('<B')),
  b'\x8b': lambda reader: _integer(reader.counted('<i')),
  b'S': lambda reader: _quoted(reader.line()),
  b'T': lambda reader: reader.counted('<i').decode('latin1'),
  b'U': lambda reader: reader.counted('<B').decode('latin1'),
  b'V': lambda reader: reader.line().decode('raw-unicode-escape'),
  b'X': lambda reader: _utf8(reader.counted('<I')),
  b'\x8c': lambda reader: _utf8(reader.counted('<B')),
  b'\x8d': lambda reader: _utf8(reader.counted('<Q')),
  b'B': lambda reader: reader.counted('<I'),
  b'C': lambda reader: reader.counted('<B'),
  b'\x8e': lambda reader: reader.counted('<Q'),
  b'\x96': lambda reader: reader.counted('<Q'),
  b']': lambda reader: [],
  b'}': lambda reader: {},
  b')': lambda reader: (),
  b'\x8f': lambda reader: set(),
  b'(': lambda reader: _MARK,
}
_READ_MEMO = {b'g': None, b'h': '<B', b'j': '<I'}
_WRITE_MEMO = {b'p': None, b'q': '<B', b'r': '<I'}
_STOP = b'.'


class PickleInterpreter:
  """The pickle machine, whose opcodes move data between a stack and a memo.

  It starts at a position of the data, and `reader.position` is the end of the pickle after `run`.
  Readers of other files, such as PyTorch's, override `find_global`, `call_global`, `set_state` and
  `load_persistent`.
  """

  def __init__(self, data: bytes, position: int = 0):
    self.reader = _Reader(data, position)
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}
    self.copied = 0

  def run(self) -> Any:
    """Runs the opcodes up to the end of the pickle, and returns the value that they built."""
    while True:
      opcode = self.reader.take(1)
      if opcode == _STOP:
        result = self.pop()
        if self.stack:
          raise UnsafePickleError('damaged pickle (values left over at its end)')
        return result
      if opcode in _CONSTANTS:
        self.stack.append(_CONSTANTS[opcode](self.reader))
      elif opcode in _READ_MEMO:
        self.stack.append(self.memo[self.memo_index(_READ_MEMO[opcode])])
      elif opcode in _WRITE_MEMO:
        self.memo[self.memo_index(_WRITE_MEMO[opcode])] = self.top()
      elif opcode in _OPERATIONS:
        _OPERATIONS[opcode](self)
      else:
        raise UnsafePickleError(
          f'not a pickle, or one with operation {opcode!r} that data does not need'
          f' (at byte {self.reader.position - 1})'
        )

  def find_global(self, module: Any, name: Any) -> Any:
    """Gives the value that stands for a name, or refuses the name."""
    return find_global(module, name)

  def call_global(self, function: Any, arguments: Any) -> Any:
    """Gives the value that stands for a call, or refuses the call."""
    return call_global(function, arguments)

  def set_state(self, value: Any, state: Any) -> None:
    """Gives an object its state, or refuses an object that has none."""
    if not isinstance(value, Node):
      raise UnsafePickleError(f'a state is given to a {type(value).__name__}, which has none')
    value.set_state(state)

  def load_persistent(self, reference: Any) -> Any:
    """Refuses references to data outside the pickle."""
    raise UnsafePickleError('it refers to something outside itself')

  def memo_index(self, layout: str | None) -> int:
    """Reads an index of the memo. Without a layout it is a line of text."""
    return int(self.reader.line()) if layout is None else int(self.reader.number(layout))

  def top(self) -> Any:
    """Returns the value on top of the stack, which must not be a mark."""
    if not self.stack or self.stack[-1] is _MARK:
      raise UnsafePickleError('damaged pickle (a value is missing)')
    return self.stack[-1]

  def pop(self) -> Any:
    """Removes the value on top of the stack and returns it."""
    value = self.top()
    self.stack.pop()
    return value

  def pop_to_mark(self) -> list[Any]:
    """Removes the last mark and the values above it, and returns those values."""
    for index in range(len(self.stack) - 1, -1, -1):
      if self.stack[index] is _MARK:
        values = self.stack[index + 1 :]
        del self.stack[index:]
        return values
    raise UnsafePickleError('damaged pickle (a mark is missing)')

  def container(self, kind: type) -> Any:
    """Returns the container of this kind that is on top of the stack."""
    value = self.top()
    if type(value) is not kind:
      raise UnsafePickleError(f'damaged pickle (a {kind.__name__} is missing)')
    return value

  def protocol(self) -> None:
    """Checks the version of the format."""
    version = self.reader.number('<B')
    if version > 5:
      raise UnsafePickleError(f'pickle protocol {version}, known are 0 to 5')

  def frame(self) -> None:
    """Skips the length of a frame."""
    self.reader.number('<Q')  # A frame's length only helps readers of streams.

  def memoize(self) -> None:
    """Saves the top value under the next index of the memo."""
    self.memo[len(self.memo)] = self.top()

  def discard(self) -> None:
    """Removes the top of the stack, which may be a mark."""
    if not self.stack:
      raise UnsafePickleError('damaged pickle (a value is missing)')
    self.stack.pop()

  def discard_marked(self) -> None:
    """Removes the last mark and the values above it."""
    self.pop_to_mark()

  def duplicate(self) -> None:
    """Pushes the top value once more."""
    self.stack.append(self.top())

  def make_tuple(self, count: int) -> None:
    """Replaces the last values by a tuple of them."""
    values = [self.pop() for _ in range(count)]
    self.stack.append(tuple(reversed(values)))

  def marked_tuple(self) -> None:
    """Replaces the marked values by a tuple of them."""
    self.stack.append(tuple(self.pop_to_mark()))

  def marked_list(self) -> None:
    """Replaces the marked values by a list of them."""
    self.stack.append(self.pop_to_mark())

  def marked_dict(self) -> None:
    """Replaces the marked keys and values by a dict of them."""
    values = self.pop_to_mark()
    self.stack.append({})
    self.set_items(values)

  def append(self) -> None:
    """Moves the top value to the list below it."""
    value = self.pop()
    self.container(list).append(value)

  def append_marked(self) -> None:
    """Moves the marked values to the list below them."""
    values = self.pop_to_mark()
    self.container(list).extend(values)

  def add_marked(self) -> None:
    """Moves the marked values to the set below them."""
    values = self.pop_to_mark()
    check_keys(values)
    self.container(set).update(values)

  def set_item(self) -> None:
    """Moves a key and its value to the dict below them."""
    value = self.pop()
    self.set_items([self.pop(), value])

  def set_items(self, values: list[Any]) -> None:
    """Sets items of the dict on top, from keys and values in turn."""
    if len(values) % 2:
      raise UnsafePickleError('damaged pickle (a key without a value)')
    check_keys(values[::2])
    self.container(dict).update(zip(values[::2], values[1::2], strict=True))

  def set_marked_items(self) -> None:
    """Moves the marked keys and values to the dict below them."""
    self.set_items(self.pop_to_mark())

  def named_global(self) -> None:
    """Pushes a name that is written as two lines."""
    module = _utf8(self.reader.line())
    self.stack.append(self.find_global(module, _utf8(self.reader.line())))

  def stack_global(self) -> None:
    """Replaces the texts of a module and a name by that name."""
    name = self.pop()
    self.stack.append(self.find_global(self.pop(), name))

  def reduce(self) -> None:
    """Replaces a function and its arguments by what stands for the call."""
    arguments = self.pop()
    for argument in arguments if isinstance(arguments, tuple) else ():
      self.copied += len(argument) if isinstance(argument, str | bytes | list) else 0
    # A harmless file converts each of its parts once.
    if self.copied > len(self.reader.data):
      raise UnsafePickleError('its content expands to more than its own size')
    self.stack.append(self.call_global(self.pop(), arguments))

  def new_object(self) -> None:
    """Replaces a class and its empty arguments by an object without state."""
    arguments = self.pop()
    kind = self.pop()
    if not isinstance(kind, Global) or arguments != ():
      raise UnsafePickleError('an object is made from something that is not a known class')
    self.stack.append(Node.instance_of(kind))

  def build(self) -> None:
    """Gives the top value as state to the object below it."""
    state = self.pop()
    self.set_state(self.top(), state)

  def persistent(self) -> None:
    """Replaces a reference by the data outside the pickle that it names."""
    self.stack.append(self.load_persistent(self.pop()))


_OPERATIONS: dict[bytes, Callable[[PickleInterpreter], None]] = {
  b'\x80': PickleInterpreter.protocol,
  b'\x95': PickleInterpreter.frame,
  b'\x94': PickleInterpreter.memoize,
  b'0': PickleInterpreter.discard,
  b'1': PickleInterpreter.discard_marked,
  b'2': PickleInterpreter.duplicate,
  b't': PickleInterpreter.marked_tuple,
  b'\x85': lambda machine: machine.make_tuple(1),
  b'\x86': lambda machine: machine.make_tuple(2),
  b'\x87': lambda machine: machine.make_tuple(3),
  b'l': PickleInterpreter.marked_list,
  b'd': PickleInterpreter.marked_dict,
  b'a': PickleInterpreter.append,
  b'e': PickleInterpreter.append_marked,
  b'\x90': PickleInterpreter.add_marked,
  b's': PickleInterpreter.set_item,
  b'u': PickleInterpreter.set_marked_items,
  b'c': PickleInterpreter.named_global,
  b'\x93': PickleInterpreter.stack_global,
  b'R': PickleInterpreter.reduce,
  b'\x81': PickleInterpreter.new_object,
  b'b': PickleInterpreter.build,
  b'Q': PickleInterpreter.persistent,
}
