"""Filesystems: one driver each, and a catalog that says which driver serves what."""
