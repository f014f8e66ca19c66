# SPDX-License-Identifier: Apache-2.0
"""A request that is answered with an error status and one line of text, and the body of such an answer."""

# Addresses of the Open Inference Protocol (KServe v2), whose errors have a form of their own.
KSERVE = "/v2"


class Refusal(Exception):
    """Ends a request.

    Args:
        status: of HTTP.
        text: what is wrong and what to do.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None):
        super().__init__(status, text, retry_after)
        self.status, self.text, self.retry_after = status, text, retry_after


def error_body(path: str, text: str) -> dict[str, str]:
    """The JSON of an error: `{"error": text}` below `/v2`, as the Open Inference Protocol has it, else `{"detail": text}`."""
    return {"error" if path == KSERVE or path.startswith(f"{KSERVE}/") else "detail": text}
