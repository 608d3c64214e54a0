"""Makes the screenshots in docs/pictures: the results of the sample series, as a reader sees them.

The sample series is drawn, not scanned: no patient is in the pictures. Needs what `make test-tools` installs.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from pydicom import dcmread
from selenium import webdriver

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ai.loaders import InProcess, load_model  # noqa: E402 - the path comes first
from ai.model import find_card  # noqa: E402 - the path comes first
from ai.pipeline import RunOptions, run_series  # noqa: E402 - the path comes first
from ai.profile import Profile  # noqa: E402 - the path comes first
from ai.sample import SampleTruth, write_sample_series  # noqa: E402 - the path comes first
from tests.orthanc import Orthanc  # noqa: E402 - the path comes first
from tests.viewer.ohif import Ohif, chromium, viewer_folder  # noqa: E402 - the path comes first
from tests.viewer.origin import served, viewer_site  # noqa: E402 - the path comes first

PICTURES = ROOT / "docs" / "pictures"
CREATED_AT = datetime(2026, 1, 5, 10, 30, tzinfo=UTC)
SLICE = 52  # lungs, heart, ribs, spine and the metal
LARGEST_BYTES = 300_000
_TO_MEASUREMENTS = """[...document.querySelectorAll('h1, h2, h3, h4')]
  .find(heading => heading.innerText.includes('Imaging Measurements')).scrollIntoView()"""


def main() -> None:
    """Run the sample through ct-tissue, put everything into an archive, open it in the viewer."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        sample = write_sample_series(Path(work) / "sample")
        with _opened(sample, Profile(), Path(work) / "binary") as (ohif, results):
            _segmentation(ohif, sample, results["seg"], "ohif-seg-binary")
            _other(ohif, results["overview"], "ohif-overview")
            _other(ohif, results["sr"], "ohif-sr")
            _report_page(results["sr"], Path(work))
        with _opened(sample, Profile(segmentation="label_map"), Path(work) / "label map") as (ohif, results):
            _segmentation(ohif, sample, results["seg"], "ohif-seg-label-map")


@contextmanager
def _opened(
    sample: SampleTruth, profile: Profile, folder: Path
) -> Iterator[tuple[Ohif, Mapping[str, bytes]]]:
    """The study of the sample and its results in an archive, open in the viewer until the block ends."""
    results = _results(sample, profile)
    with Orthanc(folder) as archive:
        for content in (*(file.read_bytes() for file in sample.files), *results.values()):
            archive.store(content)
        site = viewer_site(viewer_folder(), archive.http_port)
        with chromium(1280, 860) as chrome, served(site) as root_url:
            ohif = Ohif(chrome, root_url)
            ohif.open(sample.study_instance_uid)
            yield ohif, results


def _results(sample: SampleTruth, profile: Profile) -> Mapping[str, bytes]:
    """The encoded results of the sample, by kind."""
    model = InProcess(load_model(find_card("ct-tissue"), "cpu"))
    options = RunOptions(created_at=CREATED_AT, software_version="sample", profiles=(profile,))
    outcome = run_series(sample.files, model, options, lambda *_: None)
    Image.open(io.BytesIO(outcome.overview_png)).save(PICTURES / "overview.png", optimize=True)
    return {result.kind: result.content for result in outcome.results}


def _segmentation(ohif: Ohif, sample: SampleTruth, seg: bytes, name: str) -> None:
    """The viewer with the segmentation over its series, and its panel."""
    ohif.load_segmentation(str(dcmread(io.BytesIO(seg)).SeriesInstanceUID))
    ohif.open_panel()
    ohif.show_slice(str(dcmread(sample.files[SLICE]).SOPInstanceUID))
    ohif.settle()
    _save(ohif.chrome, name)


def _other(ohif: Ohif, result: bytes, name: str) -> None:
    """The viewer with another result in its viewport."""
    ohif.load_alone(str(dcmread(io.BytesIO(result)).SeriesInstanceUID))
    _save(ohif.chrome, name)


def _report_page(sr: bytes, work: Path) -> None:
    """The report as DCMTK renders it, in a browser: its beginning, and where the measurements begin."""
    file, page = work / "sr.dcm", work / "sr.html"
    file.write_bytes(sr)
    subprocess.run(["dsr2html", str(file), str(page)], check=True, capture_output=True)
    with chromium(900, 1200) as chrome:
        chrome.get(page.as_uri())
        _save(chrome, "sr")
        chrome.execute_script(_TO_MEASUREMENTS)
        _save(chrome, "sr-measurements")


def _save(chrome: webdriver.Chrome, name: str) -> None:
    """Keep the window as a small PNG: 256 colours are enough to look at."""
    shot = Image.open(io.BytesIO(chrome.get_screenshot_as_png())).convert("RGB")
    path = PICTURES / f"{name}.png"
    shot.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{path} has {size} bytes, more than {LARGEST_BYTES}")
    sys.stdout.write(f"{path.relative_to(ROOT)} {size} bytes\n")


if __name__ == "__main__":
    main()
