"""The distributed store of the public Mooncake, which this package has not got.

Programs look for it by importing; an ImportError is what they expect then.
"""

raise ImportError(
    "mooncake.store: the store is not part of this package yet; "
    "mooncake.engine, the transfer engine, is"
)
