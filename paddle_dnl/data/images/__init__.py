# SPDX-License-Identifier: Apache-2.0
"""Image and video files: finding, reading and bounding them; list files; video writing."""
