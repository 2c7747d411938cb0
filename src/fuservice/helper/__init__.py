"""The side that holds rights: grants, mount point, options, the conversation, the mount.

It works against libfuse's servers as well as ours, and never imports ``service``. Above each operation that uses the
caller's rights a comment says why it is safe.
"""
