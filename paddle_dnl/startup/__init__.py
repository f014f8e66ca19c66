# SPDX-License-Identifier: Apache-2.0
"""Process setup before Paddle is imported: number of threads, allocator, CPU kernels.

Importing `paddle_dnl` does not change the process. Programs of this package and their child processes call
`configure_process`; other programs can do so, too:

    from paddle_dnl import startup

    startup.configure_process()  # before paddle is imported
"""


def configure_process() -> None:
    """Configures this process for computing on a CPU; keeps environment variables that the user has set.

    Sets `OMP_NUM_THREADS` to this process's share of the cores (without it Paddle uses one thread), configures glibc's
    allocator to keep freed memory, makes MKL use its AVX2 kernels on AMD processors, and suppresses Paddle's two
    warning lines about `OMP_NUM_THREADS`. Threads and kernels only have an effect before Paddle is imported; child
    processes inherit them, but not the allocator's settings.
    """
    from paddle_dnl.startup import allocator, cpu_kernels, omp_warning, threads

    allocator.choose()
    cpu_kernels.choose()
    threads.choose()
    omp_warning.leave_out()
