"""``fuserviced``: attaches mounts for callers without rights. It gets descriptors and a small typed message, and no path."""
