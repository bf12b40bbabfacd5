# The app and the server, each in an image of less than 1.5 GB:
#
#   docker build --target app --tag fer-app .
#   docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8501:8501 fer-app
#
#   docker build --target server --tag fer-server .
#   docker run --rm --read-only --tmpfs /tmp --publish 8000:8000 --env FER_SERVER_TOKEN fer-server
#
# Whoever reaches the app can use it: publish it to this machine alone, or behind a proxy that asks for a login. The
# webcam needs `--network host`. The server does not start without a token.

FROM python:3.11-slim AS packages
WORKDIR /project
COPY pyproject.toml requirements.lock requirements-scale.lock ./
# The extra `study`, which trains networks, stays out, and with torch several gigabytes of CUDA. The app says
# that it draws no saliency maps.
RUN pip install --no-cache-dir "$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)" && \
    python -m venv --without-pip /venv && \
    VIRTUAL_ENV=/venv uv pip install --no-cache --compile-bytecode --require-hashes \
      --constraint requirements.lock --constraint requirements-scale.lock \
      --requirements pyproject.toml --extra app --extra serve

FROM python:3.11-slim AS base
# Nobody can write to what follows, but for /tmp.
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
WORKDIR /project
COPY --from=packages /venv /venv
COPY .streamlit .streamlit
COPY app app
COPY demo_faces demo_faces
COPY fer_lib fer_lib
COPY models/release models/release
COPY reports reports
USER nobody

FROM base AS server
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health')"]
CMD ["python", "-m", "fer_lib", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS app
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health')"]
CMD ["streamlit", "run", "app/main.py", "--server.address", "0.0.0.0", "--server.port", "8501"]
