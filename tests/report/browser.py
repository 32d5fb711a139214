"""A headless Chromium for tests that look at the page as its reader does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A fresh browser with an empty profile; its console and requests are recorded."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver_path = shutil.which("chromedriver")
    assert binary, "the browser tests need Chromium on the PATH"
    assert driver_path, "the browser tests need chromedriver on the PATH"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(driver_path))
        try:
            driver.set_page_load_timeout(30)
            yield driver
        finally:
            driver.quit()


def show(
    driver: webdriver.Chrome, page: Path, *, width: int = 1280, height: int = 800,
    dark: bool = False, fragment: str = "",
) -> None:  # fmt: skip
    """Opens ``page`` in a window of that size and waits until every figure is drawn."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
    )
    driver.get("about:blank")
    driver.get(page.as_uri() + fragment)
    driver.set_script_timeout(15)
    driver.execute_async_script(
        """const done = arguments[0], plots = [...document.querySelectorAll("[data-figure]")];
        const wait = () => plots.every((p) => p.querySelector(".main-svg")) ? done()
          : setTimeout(wait, 50);
        wait();"""
    )


def console(driver: webdriver.Chrome) -> list[str]:
    """What the page wrote to the console since the last call, CSP violations included."""
    return [entry["message"] for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]


def requested(driver: webdriver.Chrome) -> list[str]:
    """Addresses that were requested since the last call."""
    urls: list[str] = []
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
    return urls


def full_page(driver: webdriver.Chrome, to: Path) -> None:
    """A screenshot of the whole page."""
    import base64

    shot = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"}
    )
    to.write_bytes(base64.b64decode(shot["data"]))
