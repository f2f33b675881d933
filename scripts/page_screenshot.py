"""Take the screenshot of the server's first page for the documentation, with headless Chromium.

    python scripts/page_screenshot.py out/quickstart

The folder and the teacher in it are served, and the first example is ranked by both. Nothing else should run meanwhile,
since the page shows the times of both.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from load_clients import Client
from PIL import Image, ImageChops
from served import running, serve_command

TARGET = Path(__file__).parents[1] / "docs" / "figures" / "serve-page.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=10000",
)  # fmt: skip
WIDTH, HEIGHT = 1200, 1100
MARGIN = 20  # below the last line, in pixels
COLOURS = 64
LARGEST = 150_000  # bytes
WARM_UP = 5  # requests to each model before


def take(browser: str, url: str, path: Path) -> None:
    """Take a screenshot of a page in its light colours, after its requests."""
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={WIDTH},{HEIGHT}"
        command = [browser, *OPTIONS, size, f"--user-data-dir={profile}", f"--screenshot={path}", url]
        subprocess.run(command, check=True, capture_output=True, timeout=600)


def small(image: Image.Image) -> bytes:
    """A PNG image with few colours, without what is empty below the page."""
    plain = image.convert("RGB")
    empty = Image.new("RGB", plain.size, "white")
    if box := ImageChops.difference(plain, empty).getbbox():
        plain = plain.crop((0, 0, plain.width, min(plain.height, box[3] + MARGIN)))
    content = io.BytesIO()
    plain.quantize(COLOURS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def main() -> None:
    """Serve, take the screenshot and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder that `hfcompress run` wrote, with its teacher")
    parser.add_argument("--out", type=Path, default=TARGET, help="the image (docs/figures/serve-page.png)")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"none of {', '.join(BROWSERS)} is installed: install Chromium, for example with apt-get")
    with running(serve_command(options.folder, teacher=True)) as served, tempfile.TemporaryDirectory() as folder:
        client = Client(served.port)
        for model in [None, "teacher"] * WARM_UP:
            client.ask(json.dumps({"model": model, "query": "a", "texts": ["a b c"] * 8}).encode())
        client.close()
        time.sleep(1.0)
        path = Path(folder, "page.png")
        take(browser, f"{served.url}/#example", path)
        content = small(Image.open(path))
    if len(content) > LARGEST:
        raise SystemExit(f"{len(content)} bytes are more than {LARGEST}: choose fewer COLOURS")
    options.out.write_bytes(content)
    print(f"{options.out}: {len(content)} bytes")


if __name__ == "__main__":
    main()
