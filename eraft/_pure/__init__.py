"""The hot paths in idiomatic Python: the baseline that eraft._core is compared with."""
