"""Mooncake for Python: the interface of the public Mooncake on the engine in C.

mooncake.engine is the transfer engine. The store is not here yet: importing
mooncake.store says so. Nothing is loaded before a submodule asks for it.
"""
