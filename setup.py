# SPDX-License-Identifier: Apache-2.0
"""Which files are in the package; everything else about it is in pyproject.toml.

The configurations are `configs/` here and `paddle_dnl/configs/` in the installed package, which pyproject.toml cannot say
beside a search for packages.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["paddle_dnl", "paddle_dnl.*"]), "paddle_dnl.configs"],
    package_dir={"paddle_dnl.configs": "configs"},
    # Else all that MANIFEST.in names would be in the wheel too.
    include_package_data=False,
    package_data={"paddle_dnl": ["py.typed", "**/*.html"], "paddle_dnl.configs": ["**/*.yml"]},
)
