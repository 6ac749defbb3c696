"""Maps the folders of the repository onto the one installed package, `ulpgrad`, and builds its C++ extension."""

from setuptools import find_packages, setup

ROOTS = {"ulpgrad": "engine", "ulpgrad.kernels": "kernels", "ulpgrad.bench": "bench"}


def packages() -> list[str]:
    """Every package below each root, by its installed name."""
    return [name for root, folder in ROOTS.items() for name in [root, *(f"{root}.{p}" for p in find_packages(folder))]]


setup(packages=packages(), package_dir=ROOTS, package_data={"": ["py.typed", "*.json", "*.html", "*.css"]})
