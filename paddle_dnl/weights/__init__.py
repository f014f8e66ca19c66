# SPDX-License-Identifier: Apache-2.0
"""Every weight format that is read or written: safe pickle, safetensors, checksums, atomic files, downloads."""
