# SPDX-License-Identifier: Apache-2.0
"""The watchdog program (`main.py`): supervises one process of a distributed run, and ends and explains all when one ends.

A process whose peer dies cannot tell what happened: Gloo aborts it with a C++ stack trace, NCCL waits. So each training process
starts this program and holds the write end of its standard input, through which it sends lines:

    at N TEXT      the process reached its N-th synchronisation point; TEXT describes it
    failed TEXT    it is about to end because of an error
    done           from here on it may end
    (end of file)  it has ended

The watchdogs of all ranks, on any number of machines, connect over TCP to a hub, a thread in the watchdog of rank 0. They send
heartbeats with the state of their process. The hub collects ended processes, silent machines and stopped processes, decides which
rank is the cause, and tells all. Each watchdog then prints one line, informs its process through standard output, sends it
SIGTERM, and kills it after a grace period.

Only the standard library is used; neither training code nor Paddle is loaded.
"""
