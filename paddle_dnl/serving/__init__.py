# SPDX-License-Identifier: Apache-2.0
"""An exported model as an HTTP service: settings, uploads, pictures, batches, answers, and one page for people."""
