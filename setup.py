"""What pyproject.toml cannot declare: two folders of the checkout travel under other names."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["qdformer*"]), "qdformer.configs", "qdformer_install"],
    package_dir={"qdformer.configs": "configs", "qdformer_install": "install"},
    package_data={
        "qdformer": ["requirements.txt", "py.typed"],
        "qdformer.configs": ["*.yaml", "*/*.yaml"],
    },
)
