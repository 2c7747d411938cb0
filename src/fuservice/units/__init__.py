"""Units for systemd: text made from a profile of the cage. Nothing is asked of the system, nothing is written here.

What the cage builds by itself where `fuservice listen` starts a server, systemd builds where it starts one, and the rest the
server builds within (``inside.py``).
"""
