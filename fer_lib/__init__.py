"""Facial emotion recognition that can be rerun, audited and used."""

import os

# Since 1.29 the official builds of ONNX Runtime report which models run where to Microsoft, from the moment
# they are imported. Faces are nobody else's business; who wants to report sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
