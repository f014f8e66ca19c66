# SPDX-License-Identifier: Apache-2.0
"""How files are written: atomically, never over an input, never over a file that another program or a person wrote."""
