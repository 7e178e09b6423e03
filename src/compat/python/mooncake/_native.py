"""The library, and its functions as ctypes sees them.

It lies beside this file in a wheel; $MOONCAKE_LIBRARY names another one, and the
system's is the last resort. Whatever goes wrong is an ImportError: programs
guard the import of mooncake.engine against that, and against nothing else.

CDLL lets go of the interpreter's lock during a call.
"""

import ctypes
import os
import struct
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char,
    c_char_p,
    c_int,
    c_uint32,
    c_uint64,
    c_void_p,
)

NAME = "libtransfer_engine.so"


# struct mc_te_piece.
pack_piece = struct.Struct("PiiQQQ").pack


class Message(Structure):
    """struct mc_te_message: a notification."""

    _fields_ = [("name", c_char * 128), ("msg", c_void_p), ("len", c_uint32)]


# name: result, arguments. src/compat/te_python.h says what each does.
_FUNCTIONS = {
    "mc_te_why": (c_char_p, []),
    "mc_te_open": (c_void_p, [c_char_p, c_char_p, c_char_p, c_char_p]),
    "mc_te_note": (c_char_p, [c_void_p]),
    "mc_te_shutdown": (c_bool, [c_void_p, c_int]),
    "mc_te_free": (None, [c_void_p]),
    "mc_te_port": (c_int, [c_void_p]),
    "mc_te_segment": (c_int, [c_void_p, c_char_p]),
    "mc_te_probe": (c_int, [c_void_p, c_char_p]),
    "mc_te_first_buffer": (c_uint64, [c_void_p, c_int]),
    "mc_te_register": (c_int, [c_void_p, c_void_p, c_void_p, c_uint64, c_char_p]),
    "mc_te_unregister": (c_int, [c_void_p, c_void_p, c_uint64]),
    "mc_te_alloc": (c_uint64, [c_void_p, c_uint64]),
    "mc_te_alloc_free": (c_int, [c_void_p, c_uint64]),
    "mc_te_transfer": (
        c_int,
        [c_void_p, c_int, c_int, c_uint64, c_void_p, c_void_p, c_void_p]
        + [c_char_p, c_char_p, c_uint32],
    ),
    "mc_te_transfer_one": (c_int, [c_char_p]),
    "mc_te_submit": (
        c_uint64,
        [c_void_p, c_int, c_int, c_uint64, c_void_p, c_void_p, c_void_p],
    ),
    "mc_te_check": (c_int, [c_void_p, c_uint64, c_bool]),
    "mc_te_notify_next": (c_int, [c_void_p, POINTER(Message)]),
    "mc_te_notify_free": (None, [POINTER(Message)]),
    "mc_te_topology": (c_void_p, [c_char_p]),
    "mc_te_text_free": (None, [c_void_p]),
}


def _path():
    named = os.environ.get("MOONCAKE_LIBRARY")
    if named:
        return named
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), NAME)
    return beside if os.path.exists(beside) else NAME


def _load():
    path = _path()
    try:
        lib = ctypes.CDLL(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise ImportError("mooncake: cannot use %s: %s" % (path, error)) from error
    return lib


lib = _load()


def why():
    """The message of this thread's last failure."""
    return lib.mc_te_why().decode("utf-8", "replace")
