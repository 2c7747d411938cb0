"""Who attaches a mount where this process may not, or may: each back end is called as ``helper/attach.py`` is."""
