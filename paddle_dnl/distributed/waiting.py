# SPDX-License-Identifier: Apache-2.0
"""The time limit of waits for other processes."""

import os

from paddle_dnl.errors import DistributedError

WAIT_VARIABLE = "PADDLE_DNL_WAIT_SECONDS"
_WAIT_SECONDS = 1800.0


def wait_seconds() -> float:
    """Time limit in seconds, from the environment variable `PADDLE_DNL_WAIT_SECONDS` or the default.

    Raises:
        DistributedError: the variable is not a positive number.
    """
    text = os.environ.get(WAIT_VARIABLE, "") or str(_WAIT_SECONDS)
    try:
        if float(text) > 0:
            return float(text)
    except ValueError:
        pass
    raise DistributedError(f"{WAIT_VARIABLE}={text}: must be a positive number of seconds")
