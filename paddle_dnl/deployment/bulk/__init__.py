# SPDX-License-Identifier: Apache-2.0
"""Label maps of millions of pictures by many processes on many machines, with Ray Data."""
