"""Commands for people: one node, a whole cluster on this machine, what they say of themselves."""
