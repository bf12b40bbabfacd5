"""Check pages that a Playwright browser shows against the accessibility rules of axe-core."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.web.build import install_packages
from fer_lib.errors import FerError

SERIOUS = ("serious", "critical")


@contextmanager
def skip_offline() -> Iterator[None]:
    """Skip the test when packages of npm are missing and its registry does not answer."""
    try:
        yield
    except FerError as error:
        if re.search("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|found none", str(error)):
            pytest.skip(f"npm: {error}")
        raise


def find_violations(page, impacts=("minor", "moderate", "serious", "critical")) -> list[str]:
    """Return what breaks a rule of axe-core in a Playwright page as it is shown now, an element a line.

    The rules are those of WCAG 2 (A and AA) and axe-core's best practices. Frames are checked too.

    impacts: of the rules that count; Streamlit's own widgets break lesser ones than `SERIOUS`.
    """
    with skip_offline():
        script = (install_packages() / "axe-core" / "axe.min.js").read_text()
    for frame in page.frames:
        frame.evaluate(script)  # unlike a script tag it is not subject to the page's security policy
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    return [
        f"{rule['id']}: {' '.join(map(str, node['target']))}: {' '.join(node['failureSummary'].split())}"
        for rule in found
        if rule["impact"] in impacts
        for node in rule["nodes"]
    ]
