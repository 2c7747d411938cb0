"""Who starts the contained half: an activator listens, and starts one server, in its cage, for each connection."""
