# SPDX-License-Identifier: Apache-2.0
"""What a run says and records: log lines, curves, pictures, what differs from the recipe."""
