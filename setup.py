"""What pyproject.toml cannot declare: configs/ lies beside the package and travels inside of it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["qdformer*"]), "qdformer.configs"],
    package_dir={"qdformer.configs": "configs"},
    package_data={"qdformer": ["requirements.txt", "py.typed"], "qdformer.configs": ["*.yaml"]},
)
