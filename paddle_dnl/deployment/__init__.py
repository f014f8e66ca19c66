# SPDX-License-Identifier: Apache-2.0
"""A trained model as a product: export, the engines that run it, int8, and the folder that holds it all."""
