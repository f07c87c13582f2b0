"""What the mux does with every packet, in C where that could be built; the truth is in Python.

`media/_reel.c` says what it takes and why it exists; `make setup` builds it beside the relay's.
This is the one place that knows whether there is one: scan, index and mux ask here, and go on
without it if there is none or if it calls something unusual. To do without it, delete what it was
built as.
"""

from types import ModuleType

built: ModuleType | None
try:
    from media import _reel as built
except ImportError:  # not built here, or a processor without the instruction
    built = None

Unusual: type[ValueError] = ValueError if built is None else built.Unusual
"""What the lane raises for what it does not reckon with."""
