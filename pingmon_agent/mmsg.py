"""Many packets per system call: sendmmsg and recvmmsg of the C library, and the memory they work on.

Python pays once per batch instead of once per packet. Everything is laid out once; columns of the receive memory (one
field of each slot) are strided views, so a whole batch is compared or copied by one loop in C, without an object per
packet. Linux on 64-bit machines, of either byte order. Must not know: what is in the packets, targets, rounds.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
from array import array
from collections.abc import Sequence

MSG_DONTWAIT = 0x40
SLOTS = 512  # of receive memory, 200 KB: a tick of 10,000 targets; 256 cost 8 % more, 1,024 no less
_HEADER = 64  # struct mmsghdr
_IOVEC = 16  # struct iovec
_NAME_AT, _NAME_ROOM = 0, 32
CONTROL_AT, CONTROL_ROOM = 32, 160
DATA_AT, DATA_ROOM = 192, 192
_STRIDE = 384

_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg, _recvmmsg = _libc.sendmmsg, _libc.recvmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int)
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)


def require_64_bit() -> None:
    """Raise OSError on a machine whose kernel structures this module does not lay out."""
    if sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, "the probing engine needs a 64-bit Python; install one on this machine")


class Outbox:
    """Messages ready to be sent: packet n of `packets` goes to socket address n of `names`, whatever was sent before.

    `packets` may be changed in place between sends, but never resized. `extra` zeros follow each packet.
    """

    def __init__(
        self, packets: array[int], packet_size: int, names: array[int], name_size: int, name_stride: int, extra: int = 0
    ):
        data, size = packets.buffer_info()[0], packets.itemsize * len(packets)
        count = size // packet_size
        name = names.buffer_info()[0]
        zeros, parts = bytes(extra), 2 if extra else 1
        iovecs = array("Q", bytes(_IOVEC * parts * count))
        iovecs[0 :: 2 * parts] = array("Q", range(data, data + size, packet_size))
        iovecs[1 :: 2 * parts] = array("Q", [packet_size]) * count
        if extra:
            filler = ctypes.create_string_buffer(zeros, extra)
            iovecs[2::4] = array("Q", [ctypes.addressof(filler)]) * count
            iovecs[3::4] = array("Q", [extra]) * count
            self._filler = filler
        headers = array("Q", bytes(_HEADER * count))
        vectors = iovecs.buffer_info()[0]
        headers[0::8] = array("Q", range(name, name + name_stride * count, name_stride))
        headers[2::8] = array("Q", range(vectors, vectors + _IOVEC * parts * count, _IOVEC * parts))
        headers[3::8] = array("Q", [parts]) * count
        memoryview(headers).cast("B").cast("I")[2::16] = memoryview(array("I", [name_size]) * count)
        self._keep = packets, names, iovecs, headers
        self._base = headers.buffer_info()[0]

    def send(self, fd: int, first: int, count: int) -> int:
        """Send messages `first` to `first + count`: how many the kernel took, or -errno if it refused the first."""
        sent: int = _sendmmsg(fd, self._base + first * _HEADER, count, MSG_DONTWAIT)
        return sent if sent >= 0 else -(ctypes.get_errno() or errno.EIO)


class Inbox:
    """SLOTS places for messages. After `receive` the first n slots are filled, and columns show one field of each."""

    def __init__(self, prefix: int, *, named: bool = True) -> None:
        """`prefix`: size of the header that messages start with; what follows it lies at `body_at`, a multiple of 8.

        `named`: ask for the address of each sender. What the kernel need not copy makes a batch cheaper by 5 %.
        """
        self._start = DATA_AT + -prefix % 8
        self._room = DATA_ROOM - -prefix % 8
        self.body_room = self._room - prefix  # what is longer is cut off
        self.body_at = self._start + prefix
        self._arena = bytearray(_STRIDE * SLOTS)
        self._bytes = memoryview(self._arena)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._arena))
        self._iovecs = array("Q", bytes(_IOVEC * SLOTS))
        self._iovecs[0::2] = array("Q", range(base + self._start, base + self._start + _STRIDE * SLOTS, _STRIDE))
        self._iovecs[1::2] = array("Q", [self._room]) * SLOTS
        vectors = self._iovecs.buffer_info()[0]
        template = array("Q", bytes(_HEADER * SLOTS))
        template[0::8] = array("Q", range(base + _NAME_AT, base + _NAME_AT + _STRIDE * SLOTS, _STRIDE))
        template[2::8] = array("Q", range(vectors, vectors + _IOVEC * SLOTS, _IOVEC))
        template[3::8] = array("Q", [1]) * SLOTS
        template[4::8] = array("Q", range(base + CONTROL_AT, base + CONTROL_AT + _STRIDE * SLOTS, _STRIDE))
        template[5::8] = array("Q", [CONTROL_ROOM]) * SLOTS
        memoryview(template).cast("B").cast("I")[2::16] = memoryview(array("I", [_NAME_ROOM]) * SLOTS)
        bare = array("Q", template)
        _without_name(bare)
        bare[2::8] = bare[3::8] = array("Q", [0]) * SLOTS
        if not named:
            _without_name(template)
        self._templates, self._headers = (template, bare), array("Q", template)
        self._target = self._headers.buffer_info()[0]
        headers = memoryview(self._headers)
        self.control_lengths = headers[5::8]
        self._name_lengths = headers.cast("B").cast("I")[2::16]
        self.lengths = headers.cast("B").cast("I")[14::16]

    def receive(self, fd: int, flags: int, *, bare: bool = False) -> int:
        """Fill slots with what waits at the socket, without waiting for more: how many, or -errno.

        `bare`: control data only, neither message nor sender.
        """
        template = self._templates[bare].buffer_info()[0]
        ctypes.memmove(self._target, template, _HEADER * SLOTS)  # the kernel has overwritten sizes
        got: int = _recvmmsg(fd, self._target, SLOTS, flags | MSG_DONTWAIT, None)
        return got if got >= 0 else -(ctypes.get_errno() or errno.EIO)

    def column(self, at: int, code: str) -> memoryview:
        """The field of type `code` (as in `array`) at byte `at` of each slot; `at` is a multiple of its size."""
        size = struct.calcsize(code)
        words: memoryview[int] = self._bytes.cast(code)  # type: ignore[call-overload]  # asks for a literal
        return words[at // size :: _STRIDE // size]

    def name(self, slot: int) -> bytes:
        """The socket address that came with a message."""
        return self._part(slot, _NAME_AT, min(self._name_lengths[slot], _NAME_ROOM))

    def control(self, slot: int) -> bytes:
        """The control data that came with a message."""
        return self._part(slot, CONTROL_AT, min(self.control_lengths[slot], CONTROL_ROOM))

    def data(self, slot: int) -> bytes:
        """A message, cut off where it was longer than the slot."""
        return self._part(slot, self._start, min(self.lengths[slot], self._room))

    def _part(self, slot: int, at: int, size: int) -> bytes:
        begin = slot * _STRIDE + at
        return bytes(self._bytes[begin : begin + size])


def _without_name(headers: array[int]) -> None:
    headers[0::8] = headers[1::8] = array("Q", [0]) * SLOTS


def constant(code: str, value: int) -> memoryview:
    """A column of SLOTS times `value`, to compare another column with."""
    return memoryview(array(code, [value]) * SLOTS)


def ramp(code: str, count: int) -> memoryview:
    """0, 1, 2, ..."""
    return memoryview(array(code, range(count)))


def packed(stride: int, names: Sequence[bytes]) -> array[int]:
    """Socket addresses one after the other, each padded to `stride` bytes (a multiple of 8)."""
    return array("Q", b"".join(name.ljust(stride, b"\0") for name in names))
