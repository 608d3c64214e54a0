"""OHIF in headless Chromium, as a reader uses it: open a study, load a segmentation, look at a slice."""

from __future__ import annotations

import base64
import io
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import JavascriptException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from tests.viewer.picture import Camera

Pixels = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

_TOOLS = Path(__file__).parents[2] / ".tools"
_SECONDS = 90.0  # a page on a busy machine
_CLICK_SECONDS = 30.0  # then it is clicked again
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # it may run as root, and sees only our own pages
    "--disable-dev-shm-usage",
    "--use-gl=angle",  # WebGL without a graphics card
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)
_TOUR_IS_KNOWN = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))"
_VIEWPORT = """const {cornerstoneViewportService, viewportGridService} = services;
const shown = cornerstoneViewportService.getCornerstoneViewport(viewportGridService.getActiveViewportId());"""


def viewer_folder() -> Path:
    """The built viewer that ``make test-tools`` fetched."""
    found = sorted(_TOOLS.glob("ohif-*/index.html"))
    if len(found) != 1:
        pytest.fail("The OHIF viewer is missing: run `make test-tools`")
    return found[0].parent


@contextmanager
def chromium(width: int = 1000, height: int = 700) -> Iterator[webdriver.Chrome]:
    """Debian's Chromium without a screen, its window so large in pixels, until the block ends."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.fail("Chromium with chromedriver is missing: run `make test-tools`")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for switch in (*_SWITCHES, f"--window-size={width},{height}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        chrome.set_page_load_timeout(_SECONDS)
        chrome.set_script_timeout(_SECONDS)
        chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _TOUR_IS_KNOWN})
        yield chrome
    finally:
        chrome.quit()


class Ohif:
    """The viewer with one study in it, in its first viewport."""

    def __init__(self, chrome: webdriver.Chrome, root_url: str) -> None:
        self.chrome = chrome
        self._root_url = root_url

    def open(self, study_instance_uid: str) -> None:
        """Open a study, unless it is open; returns when its first series is drawn."""
        page = f"{self._root_url}/viewer?StudyInstanceUIDs={study_instance_uid}"
        if self.chrome.current_url == page:
            return
        self.chrome.get(page)
        self._wait("the first image", f"{_VIEWPORT} return shown.getImageData() != null")

    def _double_click(self, series_instance_uid: str) -> None:
        """Double-click a series in the list, as a reader does."""
        display_set = self._wait(
            f"series {series_instance_uid} in the list",
            """const found = services.displaySetService.getActiveDisplaySets()
                 .find(each => each.SeriesInstanceUID === arguments[0]);
               const id = found?.displaySetInstanceUID;
               return document.getElementById(`thumbnail-${id}`) ? id : null""",
            series_instance_uid,
        )
        row = self.chrome.find_element(By.ID, f"thumbnail-{display_set}")
        self.chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", row)
        ActionChains(self.chrome).double_click(row).perform()

    def load_alone(self, series_instance_uid: str) -> None:
        """Load a series that takes the place of the one shown; returns when the window is at rest."""
        self._load_until(
            series_instance_uid,
            f"series {series_instance_uid} in the viewport",
            """const {displaySetService, viewportGridService} = services;
               const id = viewportGridService.getActiveViewportId();
               return viewportGridService.getDisplaySetsUIDsForViewport(id).some(each =>
                 displaySetService.getDisplaySetByUID(each).SeriesInstanceUID === arguments[0])""",
        )
        self.settle()

    def load_segmentation(self, series_instance_uid: str) -> None:
        """Load a segmentation, and take away any before it; returns when it lies over its series."""
        self.chrome.execute_script(
            "services.segmentationService.getSegmentations().forEach(each => "
            "services.segmentationService.remove(each.segmentationId))"
        )
        self._load_until(
            series_instance_uid,
            "the segmentation over its series",
            f"""{_VIEWPORT}
                const laid = services.segmentationService.getSegmentationRepresentations(shown.id);
                const sets = services.displaySetService.getActiveDisplaySets();
                const series = id => sets.find(each => each.displaySetInstanceUID === id)?.SeriesInstanceUID;
                return laid.length === 1 && series(laid[0].segmentationId) === arguments[0]
                  && shown.getImageData() != null""",
        )

    def _load_until(self, series_instance_uid: str, what: str, script: str) -> None:
        """Load a series; a double click that fell beside a list that was moving is done again."""
        for _ in range(2):
            self._double_click(series_instance_uid)
            with suppress(AssertionError):
                self._wait(what, script, series_instance_uid, seconds=_CLICK_SECONDS)
                return
        self._double_click(series_instance_uid)
        self._wait(what, script, series_instance_uid)

    def panel(self) -> list[tuple[str, Rgb]]:
        """Label and colour of each row of the segmentation panel, from the top."""
        self.open_panel()
        rows = self._wait(
            "rows in the segmentation panel",
            """return [...document.querySelectorAll('[data-cy="data-row"]')].map(row => [
                 row.querySelector('[data-cy="data-row-title"]').innerText,
                 row.querySelector('[data-cy="data-row-colorhex"]').style.backgroundColor])""",
        )
        return [(label, _rgb(colour)) for label, colour in rows]

    def open_panel(self) -> None:
        """Show the segmentation panel."""
        if not self.chrome.find_elements(By.CSS_SELECTOR, '[data-cy="data-row"]'):
            self.chrome.find_element(By.CSS_SELECTOR, '[data-cy="panelSegmentation-btn"]').click()

    def show_slice(self, sop_instance_uid: str) -> None:
        """Scroll to an image of the series."""
        self._wait(
            f"image {sop_instance_uid}",
            f"""{_VIEWPORT}
                const wanted = `/instances/${{arguments[0]}}/`;
                const index = shown.getImageIds().findIndex(id => id.includes(wanted));
                if (index < 0) return false;
                if (shown.getCurrentImageId()?.includes(wanted)) return true;
                cornerstone.utilities.jumpToSlice(shown.element, {{imageIndex: index}});
                return false""",
            sop_instance_uid,
        )

    def fill_only(self, alpha: float) -> None:
        """Draw segments without an outline, filled with this opacity (sliders of the panel)."""
        self.chrome.execute_script(
            """services.segmentationService.setStyle({type: 'Labelmap'}, {
                 fillAlpha: arguments[0], fillAlphaInactive: arguments[0],
                 renderOutline: false, renderOutlineInactive: false})""",
            alpha,
        )

    def letters(self) -> dict[str, str]:
        """The side letters at the edges of the viewport: ``{"top": "A", "left": "R"}``."""
        found = self._wait(
            "letters at the edges",
            """return [...document.querySelectorAll('.orientation-marker')].map(each =>
                 [[...each.classList].find(name => name.endsWith('-mid')), each.innerText])""",
        )
        return {edge.removesuffix("-mid"): letters for edge, letters in found}

    def view(self) -> tuple[Pixels, Camera]:
        """What the viewport shows, RGB ``(rows, columns, 3)``, and where; drawn anew, and the same twice."""
        before: Pixels | None = None
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            now, camera = self._drawn()
            if before is not None and np.array_equal(before, now):
                return now, camera
            before = now
            time.sleep(0.25)
        raise AssertionError(f"the viewport was not at rest within {_SECONDS:.0f} s")

    def settle(self) -> None:
        """Wait until the window looks the same for a second."""
        before = b""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self.chrome.get_screenshot_as_png()
            if now == before:
                return
            before = now
        raise AssertionError(f"the window was not at rest within {_SECONDS:.0f} s")

    def _drawn(self) -> tuple[Pixels, Camera]:
        url, points = self.chrome.execute_async_script(
            f"""const done = arguments[arguments.length - 1];
                {_VIEWPORT}
                const look = () => {{
                  const scale = shown.canvas.width / shown.canvas.clientWidth;
                  const at = (x, y) => [...shown.canvasToWorld([x / scale, y / scale])];
                  done([shown.canvas.toDataURL('image/png'), [at(0.5, 0.5), at(1.5, 0.5), at(0.5, 1.5)]]);
                }};
                shown.element.addEventListener(cornerstone.Enums.Events.IMAGE_RENDERED, look, {{once: true}});
                shown.render()"""
        )
        png = base64.b64decode(url.partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        first, right, below = (np.asarray(point, dtype=np.float64) for point in points)
        return pixels, Camera(first, below - first, right - first, (pixels.shape[0], pixels.shape[1]))

    def _wait(self, what: str, script: str, *arguments: object, seconds: float = _SECONDS) -> Any:
        """The first value of a script that is neither false nor empty."""
        last = ""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                value = self.chrome.execute_script(script, *arguments)
            except JavascriptException as error:  # what it asks for is not there yet
                last = str(error.msg).splitlines()[0]
            else:
                if value:
                    return value
            time.sleep(0.1)
        complaints = "; ".join((last, *self.complaints()[-5:]))
        raise AssertionError(f"waited {seconds:.0f} s in vain for {what}. The page says: {complaints}")

    def complaints(self) -> list[str]:
        """Errors in the page's console."""
        try:
            log = self.chrome.get_log("browser")
        except WebDriverException:
            return []
        return [entry["message"][:300] for entry in log if entry["level"] == "SEVERE"]


def _rgb(css: str) -> Rgb:
    """``rgb(1, 2, 3)`` as numbers."""
    red, green, blue = (int(number) for number in re.findall(r"\d+", css)[:3])
    return red, green, blue
