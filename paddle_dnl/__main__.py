# SPDX-License-Identifier: Apache-2.0
"""`python -m paddle_dnl`: the same as the command `paddle-dnl`."""

from paddle_dnl.cli.main import main

if __name__ == "__main__":
    main()
