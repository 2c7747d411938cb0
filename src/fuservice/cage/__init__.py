"""Containment: a plan is a list of operations, pure data that can be shown; entering it executes them in order.

What is here are the walls of an ordinary process: its user, capabilities, descriptors, limits. Namespaces, Landlock and
seccomp will be more operations of the same kind.
"""
