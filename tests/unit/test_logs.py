"""Logs are JSON lines, and no exception or library can put a patient's name into them."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, threading, warnings
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
def crash():
    raise ValueError("DOE^JANE")
thread = threading.Thread(target=crash, name="sender")
thread.start()
thread.join()
log.info("line", text="one\\nline \\x1b[31m")
"""


def test_every_line_is_json_and_the_name_is_nowhere() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "DOE" not in done.stderr + done.stdout
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [record["event"] for record in records] == [
        "failed", "failed", "library_message", "unhandled_exception", "line",
    ]  # fmt: skip
    assert {record["component"] for record in records} == {"serve"}
    assert [record["error"] for record in records[:4]] == ["ValueError"] * 4
    assert "<string>:6 <module>" in records[0]["places"][0]


def test_an_error_that_ends_the_process_is_logged_without_its_message() -> None:
    script = 'from gateway import logs; logs.configure("worker"); raise ValueError("DOE^JANE")'
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    record = json.loads(done.stderr)
    assert (record["event"], record["error"]) == ("unhandled_exception", "ValueError")
