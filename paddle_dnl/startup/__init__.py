"""What a program settles before Paddle is imported: threads, allocator, CPU kernels."""
