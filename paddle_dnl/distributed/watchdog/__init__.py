# SPDX-License-Identifier: Apache-2.0
"""Watches one process of a distributed run from outside, so that the end of any process ends all and is explained.

A program of its own, `main.py`.

A process whose partner dies cannot tell what happened: gloo aborts it with a C++ stack, NCCL lets it wait. So each training
process starts this program beside itself and holds the other end of its standard input. Lines that come in there:

    at N TEXT      the process reached its N-th point of synchronisation, TEXT says what it does there
    failed TEXT    it is about to end because of an error
    done           from here on it may end
    (end of file)  it has ended

The watchdogs of all ranks, on any number of machines, are connected over TCP to a hub, a thread in that of rank 0. They send a
heartbeat with the state of their process; the hub collects ends, silent machines and stopped processes, decides which rank
is the cause, and tells all. Each watchdog then prints one line, tells its process through standard output, asks it to end
(SIGTERM), and kills it after a time of grace.

Only the standard library is used, and neither training code nor Paddle is loaded.
"""
