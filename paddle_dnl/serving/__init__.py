# SPDX-License-Identifier: Apache-2.0
"""HTTP service of an exported model: settings, uploads, decoding, batching, results, and a web page."""
