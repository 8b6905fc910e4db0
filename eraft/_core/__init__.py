"""The hot paths, compiled; each module has a twin of the same name in eraft._pure."""
