# SPDX-License-Identifier: Apache-2.0
"""Programs of tests start with the default reactions to signals, also below nohup and in background jobs of shells."""

import signal


def default_signals() -> None:
    """For `preexec_fn`: nohup and background jobs hand down signals that are ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
