# SPDX-License-Identifier: Apache-2.0
"""Picture and video files: which there are, what they hold, reading them and bounding what strangers send."""
