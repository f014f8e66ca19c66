# SPDX-License-Identifier: Apache-2.0
"""Weight files: safe pickle, safetensors, checksums, downloads, conversion."""
