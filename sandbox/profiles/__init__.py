"""What the kernel offers to a program in a sandbox."""
