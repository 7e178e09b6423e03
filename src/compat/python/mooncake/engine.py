"""mooncake.engine: the transfer engine, with the interface of the public one.

    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    engine.initialize("10.0.0.1", "P2PHANDSHAKE", "tcp", "")
    engine.register_memory(address, length)
    session = f"10.0.0.1:{engine.get_rpc_port()}"       # tell it to a peer
    engine.batch_transfer_sync_write(peer, [source], [target], [length])

Transfers do not raise: they return 0, or -1 after a line to the logger
"mooncake.engine" that says why; TransferEngine.last_error() repeats it. When one
returns, nobody touches its memory any more. Addresses and lengths are integers,
or what has __index__. All methods may be called from any thread; none holds the
interpreter's lock while it waits.
"""

from __future__ import annotations

import atexit
import ctypes
import enum
import logging
import operator
import struct
import threading
import time
import weakref
from array import array
from typing import List, Optional, Sequence, Union

from . import _native

__all__ = [
    "InnerTransferEngine",
    "Read",
    "TransferEngine",
    "TransferNotify",
    "TransferOpcode",
    "Write",
]

_lib = _native.lib
_piece = _native.pack_piece
_transfer_one = _lib.mc_te_transfer_one

# A peer that was not opened yet, an engine that is not open, or arguments that
# are not numbers: what goes the long way, where it is opened or named.
_NOT_A_PIECE = (KeyError, struct.error)
_log = logging.getLogger("mooncake.engine")

SUPPORT_CUDA = False
SUPPORT_EFA = False
SUPPORT_HIP = False
SUPPORT_INTRA_NVLINK = False
SUPPORT_MNNVL = False
SUPPORT_MUSA = False


class TransferOpcode(enum.IntEnum):
    """Read: remote to local. Write: local to remote."""

    Read = 0
    Write = 1


Read = TransferOpcode.Read
Write = TransferOpcode.Write


class TransferNotify:
    """A message that the target gets after the bytes of a transfer."""

    __slots__ = ("name", "msg")

    def __init__(self, name: str = "", msg: str = "") -> None:
        self.name = name
        self.msg = msg

    def __repr__(self) -> str:
        return "TransferNotify(name=%r, msg=%r)" % (self.name, self.msg)


class InnerTransferEngine:
    """The engine inside a TransferEngine, to be handed on; it keeps it alive."""

    __slots__ = ("_owner",)

    def __init__(self, owner: TransferEngine) -> None:
        self._owner = owner


# ---- failures -----------------------------------------------------------

_failure = threading.local()
_logged = ("", 0.0)


def _say(text: str) -> None:
    """Log a failure. Some callers try the same thing in a loop."""
    global _logged
    last, when = _logged
    now = time.monotonic()
    again = text == last and now - when < 1
    if not again:
        _logged = (text, now)
    _log.log(logging.DEBUG if again else logging.ERROR, "%s", text)


def _fail(what: str, why: Optional[str] = None) -> int:
    text = "%s: %s" % (what, _native.why() if why is None else why)
    _failure.text = text
    _say(text)
    return -1


_remarks = set()


def _remark(text: str) -> None:
    """Log what was decided for the user, once in a process."""
    if text and text not in _remarks:
        _remarks.add(text)
        _log.warning("%s", text)


_NOT_READY = "the engine is not initialized"


# ---- arguments ----------------------------------------------------------


def _numbers(what: str, values: Sequence[int]) -> array:
    try:
        return array("Q", values)
    except (TypeError, OverflowError) as error:
        # Callers that swallow exceptions would take it for the network's.
        _say("%s: expected addresses and lengths: %s" % (what, error))
        raise TypeError("%s: expected integers: %s" % (what, error)) from error


def _encode(text: Union[str, bytes]) -> bytes:
    if isinstance(text, bytes):
        return text
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _at(numbers: array) -> int:
    return numbers.buffer_info()[0]


# ---- the end ------------------------------------------------------------

# Engines that are open; at the interpreter's end their names are withdrawn,
# though daemon threads may still be inside a call.
_open = weakref.WeakSet()
_EXIT_MS = 2000


def _close_all() -> None:
    for engine in list(_open):
        handle, engine._handle = engine._handle, None
        if handle:
            _lib.mc_te_shutdown(handle, _EXIT_MS)


atexit.register(_close_all)


class TransferEngine:
    """One process's part in moving memory between processes and hosts."""

    TransferOpcode = TransferOpcode

    def __init__(self) -> None:
        self._handle: Optional[int] = None
        self._segments: dict = {}

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle:
            self._handle = None
            _lib.mc_te_free(handle)

    # ---- opening ----------------------------------------------------

    def initialize(
        self,
        local_hostname: str,
        metadata_server: str,
        protocol: str,
        device_name: str,
    ) -> int:
        """Open the engine: 0, or -1, which leaves nothing behind.

        metadata_server is "P2PHANDSHAKE", or where names are kept: "http://...",
        "etcd://..." (also without scheme), "redis://...". protocol "tcp" also
        means shared memory between processes of one host. One that this machine
        cannot do is an error, or tcp with MC_FORCE_TCP or MOONCAKE_FALLBACK in
        the environment.
        """
        if self._handle:
            return _fail("initialize", "the engine is initialized already")
        if protocol == "ascend" and ":npu_" in local_hostname:
            local_hostname = local_hostname[: local_hostname.rindex(":npu_")]
        handle = _lib.mc_te_open(
            _encode(metadata_server),
            _encode(local_hostname),
            _encode(protocol),
            _encode(device_name or ""),
        )
        if not handle:
            return _fail("initialize")
        _remark(_decode(_lib.mc_te_note(handle)))
        self._handle = handle
        _open.add(self)
        return 0

    def initialize_ext(
        self,
        local_hostname: str,
        metadata_server: str,
        protocol: str,
        device_name: str,
        metadata_type: str,
    ) -> int:
        """initialize() with the kind of metadata server apart: "etcd", "redis",
        "http", or "p2p"."""
        if metadata_type.lower().startswith("p2p"):
            metadata_server = "P2PHANDSHAKE"
        elif "://" not in metadata_server and metadata_server != "P2PHANDSHAKE":
            metadata_server = "%s://%s" % (metadata_type, metadata_server)
        return self.initialize(local_hostname, metadata_server, protocol, device_name)

    def get_rpc_port(self) -> int:
        """The port of this engine: peers open "host:port". 0 if it is not open."""
        handle = self._handle
        return max(_lib.mc_te_port(handle), 0) if handle else 0

    def get_engine(self) -> InnerTransferEngine:
        return InnerTransferEngine(self)

    def get_engine_ptr(self) -> int:
        return self._handle or 0

    def last_error(self) -> str:
        """Why this thread's last method that failed did; "" if none has."""
        return getattr(_failure, "text", "")

    # ---- memory -----------------------------------------------------

    def register_memory(
        self, buffer_addr: int, capacity: int, location: str = "*"
    ) -> int:
        """Let peers read and write it: 0, -7 if it overlaps what is registered."""
        return self.batch_register_memory([buffer_addr], [capacity], location)

    def unregister_memory(self, buffer_addr: int) -> int:
        """Take it back: 0, and nobody touches it any more; -3 if none is there."""
        return self.batch_unregister_memory([buffer_addr])

    def batch_register_memory(
        self,
        buffer_addresses: Sequence[int],
        capacities: Sequence[int],
        location: str = "*",
    ) -> int:
        """All or none."""
        handle = self._handle
        if not handle:
            return _fail("register memory", _NOT_READY)
        addresses = _numbers("register memory", buffer_addresses)
        lengths = _numbers("register memory", capacities)
        if len(addresses) != len(lengths):
            return _fail("register memory", "the lists have different lengths")
        result = _lib.mc_te_register(
            handle, _at(addresses), _at(lengths), len(addresses), _encode(location)
        )
        if result:
            _fail("register memory")
        return result

    def batch_unregister_memory(self, buffer_addresses: Sequence[int]) -> int:
        """Goes on after an error, and returns the first one."""
        handle = self._handle
        if not handle:
            return _fail("unregister memory", _NOT_READY)
        addresses = _numbers("unregister memory", buffer_addresses)
        result = _lib.mc_te_unregister(handle, _at(addresses), len(addresses))
        if result:
            _fail("unregister memory")
        return result

    def allocate_managed_buffer(self, length: int) -> int:
        """The address of memory that is registered, and that peers of this host
        map; 0 on failure."""
        handle = self._handle
        if not handle:
            _fail("allocate_managed_buffer", _NOT_READY)
            return 0
        address = _lib.mc_te_alloc(handle, operator.index(length))
        if not address:
            _fail("allocate_managed_buffer")
        return address

    def free_managed_buffer(self, buffer_addr: int, length: int) -> int:
        handle = self._handle
        if not handle:
            return _fail("free_managed_buffer", _NOT_READY)
        result = _lib.mc_te_alloc_free(handle, operator.index(buffer_addr))
        if result:
            _fail("free_managed_buffer")
        return result

    def write_bytes_to_buffer(
        self, dest_address: int, src: Union[str, bytes], length: int
    ) -> int:
        """Copy to memory of this process."""
        data = _encode(src) if isinstance(src, str) else bytes(src)
        if length > len(data):
            return _fail(
                "write_bytes_to_buffer",
                "%d bytes are wanted of %d" % (length, len(data)),
            )
        ctypes.memmove(operator.index(dest_address), data, length)
        return 0

    def read_bytes_from_buffer(self, source_address: int, length: int) -> bytes:
        """Copy from memory of this process."""
        return ctypes.string_at(operator.index(source_address), length)

    # ---- segments ---------------------------------------------------

    def _segment(self, what: str, name: str) -> int:
        """An id, or -1 after saying why. It stays valid when the peer restarts."""
        segment = self._segments.get(name)
        if segment is not None:
            return segment
        handle = self._handle
        if not handle:
            return _fail(what, _NOT_READY)
        segment = _lib.mc_te_segment(handle, _encode(name))
        if segment < 0:
            return _fail("%s to %s" % (what, name))
        self._segments[name] = segment
        return segment

    def get_first_buffer_address(self, segment_name: str) -> int:
        """Of the memory that the peer registered first; 0 if there is none."""
        segment = self._segment("get_first_buffer_address", segment_name)
        handle = self._handle
        if segment < 0 or not handle:
            return 0
        return _lib.mc_te_first_buffer(handle, segment)

    def send_probe(self, peer_server_name: str) -> int:
        """0: the peer answers."""
        handle = self._handle
        if not handle:
            return _fail("send_probe", _NOT_READY)
        if _lib.mc_te_probe(handle, _encode(peer_server_name)) < 0:
            return _fail("send_probe to %s" % peer_server_name)
        return 0

    def warmup_efa_segment(self, segment_name: str) -> int:
        return 0

    def get_local_topology(self, device_name: Optional[str] = None) -> str:
        """JSON: {"cpu:0": [[NICs that are near], [others]], ...}."""
        text = _lib.mc_te_topology(_encode(device_name or ""))
        if not text:
            _fail("get_local_topology")
            return "{}"
        try:
            return _decode(ctypes.string_at(text))
        finally:
            _lib.mc_te_text_free(text)

    # ---- transfers of one piece -------------------------------------

    def _one(self, what, target, buffer, remote, length, opcode, notify=None) -> int:
        return self._many(
            what, target, [buffer], [remote], [length], opcode, notify
        )

    # Written out, and not in terms of each other: each call of a function is a
    # tenth of the time of a small transfer in shared memory.

    def transfer_sync_write(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        try:
            segment = self._segments[target_hostname]
            piece = _piece(
                self._handle, segment, 1, buffer, peer_buffer_address, length
            )
        except _NOT_A_PIECE:
            return self._one(
                "transfer_sync_write",
                target_hostname,
                buffer,
                peer_buffer_address,
                length,
                1,
            )
        if _transfer_one(piece):
            return _fail("transfer_sync_write to %s" % target_hostname)
        return 0

    def transfer_sync_read(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        try:
            segment = self._segments[target_hostname]
            piece = _piece(
                self._handle, segment, 0, buffer, peer_buffer_address, length
            )
        except _NOT_A_PIECE:
            return self._one(
                "transfer_sync_read",
                target_hostname,
                buffer,
                peer_buffer_address,
                length,
                0,
            )
        if _transfer_one(piece):
            return _fail("transfer_sync_read to %s" % target_hostname)
        return 0

    def transfer_sync(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        opcode: TransferOpcode,
        notify: Optional[TransferNotify] = None,
        transport_hint: str = "",
    ) -> int:
        """With notify, the peer has the message when this returns 0. A length
        of 0 sends the message alone."""
        return self._one(
            "transfer_sync",
            target_hostname,
            buffer,
            peer_buffer_address,
            length,
            opcode,
            notify,
        )

    # ---- transfers of many pieces -----------------------------------

    def _many(
        self, what, target, buffers, remotes, lengths, opcode, notify=None
    ) -> int:
        sources = _numbers(what, buffers)
        targets = _numbers(what, remotes)
        sizes = _numbers(what, lengths)
        n = len(sources)
        if n != len(targets) or n != len(sizes):
            return _fail(what, "the lists have different lengths")
        segment = self._segment(what, target)
        handle = self._handle
        if segment < 0 or not handle:
            return -1
        name = message = None
        if notify is not None:
            name, message = _encode(notify.name), _encode(notify.msg)
        result = _lib.mc_te_transfer(
            handle,
            segment,
            opcode,
            n,
            _at(sources),
            _at(targets),
            _at(sizes),
            name,
            message,
            len(message) if message else 0,
        )
        return _fail("%s to %s" % (what, target)) if result else 0

    def batch_transfer_sync_write(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
    ) -> int:
        return self._many(
            "batch_transfer_sync_write",
            target_hostname,
            buffers,
            peer_buffer_addresses,
            lengths,
            1,
        )

    def batch_transfer_sync_read(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
    ) -> int:
        return self._many(
            "batch_transfer_sync_read",
            target_hostname,
            buffers,
            peer_buffer_addresses,
            lengths,
            0,
        )

    def batch_transfer_sync(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
        notify: Optional[TransferNotify] = None,
        transport_hint: str = "",
    ) -> int:
        return self._many(
            "batch_transfer_sync",
            target_hostname,
            buffers,
            peer_buffer_addresses,
            lengths,
            opcode,
            notify,
        )

    # ---- transfers in flight ----------------------------------------

    def _submit(self, what, target, buffers, remotes, lengths, opcode) -> int:
        sources = _numbers(what, buffers)
        targets = _numbers(what, remotes)
        sizes = _numbers(what, lengths)
        n = len(sources)
        if n != len(targets) or n != len(sizes):
            _fail(what, "the lists have different lengths")
            return 0
        segment = self._segment(what, target)
        handle = self._handle
        if segment < 0 or not handle:
            return 0
        batch = _lib.mc_te_submit(
            handle, segment, opcode, n, _at(sources), _at(targets), _at(sizes)
        )
        if not batch:
            _fail("%s to %s" % (what, target))
        return batch

    def batch_transfer_async_write(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
    ) -> int:
        """The id of a batch in flight, 0 on failure. Its memory is in use until
        get_batch_transfer_status() or transfer_check_status() says how it ended."""
        return self._submit(
            "batch_transfer_async_write",
            target_hostname,
            buffers,
            peer_buffer_addresses,
            lengths,
            1,
        )

    def batch_transfer_async_read(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
    ) -> int:
        return self._submit(
            "batch_transfer_async_read",
            target_hostname,
            buffers,
            peer_buffer_addresses,
            lengths,
            0,
        )

    def batch_transfer_async(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
        transport_hint: str = "",
    ) -> int:
        return self._submit(
            "batch_transfer_async",
            target_hostname,
            buffers,
            peer_buffer_addresses,
            lengths,
            opcode,
        )

    def transfer_submit_write(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        transport_hint: str = "",
    ) -> int:
        """As batch_transfer_async_write()."""
        return self._submit(
            "transfer_submit_write",
            target_hostname,
            [buffer],
            [peer_buffer_address],
            [length],
            1,
        )

    def _check(self, batch_id: int, wait: bool) -> int:
        handle = self._handle
        if not handle:
            return _fail("transfer", _NOT_READY)
        result = _lib.mc_te_check(handle, operator.index(batch_id), wait)
        return _fail("transfer") if result < 0 else result

    def transfer_check_status(self, batch_id: int) -> int:
        """1: done, -1: failed, and the id is no more; 0: in flight."""
        return self._check(batch_id, False)

    def get_batch_transfer_status(self, batch_ids: Sequence[int]) -> int:
        """Wait until all have ended: 0, or -1 if one failed. The ids are no
        more."""
        results = [self._check(batch_id, True) for batch_id in batch_ids]
        return 0 if all(result == 1 for result in results) else -1

    # ---- notifications ----------------------------------------------

    def get_notifies(self) -> List[TransferNotify]:
        """Those that have come since the last call."""
        handle = self._handle
        notifies: List[TransferNotify] = []
        if not handle:
            return notifies
        message = _native.Message()
        while _lib.mc_te_notify_next(handle, message) > 0:
            text = ctypes.string_at(message.msg, message.len) if message.len else b""
            notifies.append(TransferNotify(_decode(message.name), _decode(text)))
            _lib.mc_te_notify_free(message)
        return notifies
