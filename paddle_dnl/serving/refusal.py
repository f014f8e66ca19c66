# SPDX-License-Identifier: Apache-2.0
"""Error responses: status code, one line of text, and JSON body."""

# Prefix of the routes of the Open Inference Protocol (KServe v2), which has its own error format.
KSERVE = "/v2"


class Refusal(Exception):
    """Ends a request with an error response.

    Args:
        status: HTTP status code.
        text: what is wrong and what to do.
        retry_after: seconds after which the client may try again.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None):
        super().__init__(status, text, retry_after)
        self.status, self.text, self.retry_after = status, text, retry_after


def error_body(path: str, text: str) -> dict[str, str]:
    """Returns `{"error": text}` for paths below `/v2`, as in the Open Inference Protocol, else `{"detail": text}`."""
    return {"error" if path == KSERVE or path.startswith(f"{KSERVE}/") else "detail": text}
