"""Logs are JSON lines, and no exception or library can put a patient's name into them."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, warnings
from gateway import logs
log = logs.configure("serve")
try:
    raise ValueError("DOE^JANE")
except ValueError as error:
    log.exception("failed")
    log.error("failed", exc_info=error)
    logging.getLogger("uvicorn.error").exception("broken")
logging.getLogger("pydicom").error("DOE^JANE")
logging.getLogger("pynetdicom.acse").critical("DOE^JANE")
warnings.warn("DOE^JANE")
log.info("line", text="one\\nline \\x1b[31m")
"""


def test_every_line_is_json_and_the_name_is_nowhere() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "DOE" not in done.stderr + done.stdout
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [record["event"] for record in records] == ["failed", "failed", "library_message", "line"]
    assert {record["component"] for record in records} == {"serve"}
    assert [record["error"] for record in records[:3]] == ["ValueError"] * 3
    assert "<string>:6 <module>" in records[0]["places"][0]
