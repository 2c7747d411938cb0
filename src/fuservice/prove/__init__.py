"""The proof of the cage: attempts to get out of it, made from inside, and the walls that each of them must fail at."""
