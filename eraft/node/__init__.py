"""One node without I/O: it composes groups, state machines, log and routing."""
