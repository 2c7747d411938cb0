"""Containment: a plan is a list of operations, pure data that can be shown; entering it executes them in order.

Each operation builds a part of a wall, and the walls have names (``plan.WALLS``). A wall that cannot be built stops the
start; one is left out only where somebody typed its name.
"""
