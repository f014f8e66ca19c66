# SPDX-License-Identifier: Apache-2.0
"""Process setup before Paddle is imported: number of threads, allocator, CPU kernels.

Importing `paddle_dnl` changes nothing in the process. Programs of this package, and processes that it starts, call
`configure_process`; so may anyone who uses it as a library:

    from paddle_dnl import startup

    startup.configure_process()  # before paddle is imported
"""


def configure_process() -> None:
    """Sets this process up for computing on a CPU; variables that the user has set are kept.

    `OMP_NUM_THREADS` becomes this process's share of the cores (Paddle takes one thread without it), glibc's allocator keeps
    memory from layer to layer, MKL takes its AVX2 kernels on AMD processors, and Paddle's two lines of warning about
    `OMP_NUM_THREADS` are suppressed. Threads and kernels have an effect only before Paddle is imported. Children inherit threads
    and kernels, not the allocator's setting.
    """
    from paddle_dnl.startup import allocator, cpu_kernels, omp_warning, threads

    allocator.choose()
    cpu_kernels.choose()
    threads.choose()
    omp_warning.leave_out()
