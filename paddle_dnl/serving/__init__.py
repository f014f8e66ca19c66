# SPDX-License-Identifier: Apache-2.0
"""HTTP service of exported models: settings, uploads, decoding, batching, results, and a web page."""
