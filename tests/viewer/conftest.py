"""One archive, one site and one browser for all tests of the viewer; a picture of what went wrong."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

from tests.orthanc import Orthanc
from tests.viewer.ohif import Ohif, chromium, viewer_folder
from tests.viewer.origin import served, viewer_site


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("viewer") / "pacs") as pacs:
        yield pacs


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def ohif(archive: Orthanc, chrome: webdriver.Chrome) -> Iterator[Ohif]:
    with served(viewer_site(viewer_folder(), archive.http_port)) as root_url:
        yield Ohif(chrome, root_url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the browser's window, and the errors of its page, where a test with a browser fails."""
    report = yield
    browser, folder = item.funcargs.get("chrome"), item.funcargs.get("tmp_path")
    ohif = item.funcargs.get("ohif")
    if report.failed and browser is not None and folder is not None:
        try:
            browser.save_screenshot(str(folder / "window.png"))
        except WebDriverException as error:
            report.sections.append(("window", f"no picture: {error.msg}"))
        else:
            report.sections.append(("window", str(folder / "window.png")))
        if ohif is not None:
            report.sections.append(("console of the page", "\n".join(ohif.complaints())))
    return report
