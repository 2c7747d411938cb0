"""The kernel's door: the only ctypes, ioctl and recvmsg of the project. One subject, one file."""
