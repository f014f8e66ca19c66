# SPDX-License-Identifier: Apache-2.0
"""A request that is answered with an error status and one line of text."""


class Refusal(Exception):
    """Ends a request.

    Args:
        status: of HTTP.
        text: what is wrong and what to do.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None):
        super().__init__(text)
        self.status, self.text, self.retry_after = status, text, retry_after
