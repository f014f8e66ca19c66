# SPDX-License-Identifier: Apache-2.0
"""Labels millions of pictures with many processes on many machines, by Ray Data."""
