# SPDX-License-Identifier: Apache-2.0
"""What can be known of a GPU without one, and the check that whoever has one can run."""
