# docker build -t qdformer . && docker run --rm qdformer --help
FROM python:3.11-slim
# OpenCV's and PyAV's wheels bring what they need; Detectron2 0.6 is fetched as pure Python.
RUN useradd --create-home user
WORKDIR /opt/qdformer
COPY requirements.lock setup.py pyproject.toml README.md LICENSE ./
COPY install install
COPY qdformer qdformer
COPY configs configs
RUN pip install --no-cache-dir --constraint requirements.lock . opencv-python-headless \
    && python -m qdformer_install.detectron2_wheel
USER user
WORKDIR /home/user
ENTRYPOINT ["qdformer"]
CMD ["--help"]
