"""The report in headless Chromium: every plot is drawn, the console is silent, nothing is asked of the network."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="Debian's chromium and chromium-driver are not installed (.ci/run does)"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1240,2000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.get("about:blank")
    yield driver
    driver.quit()


OPENED = "document.querySelectorAll('details').forEach(part => { part.open = true; });"  # what was folded


def requested(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("chrome://")]  # the browser's own start page


def test_every_plot_is_drawn_and_nothing_is_asked_of_the_network(browser: Any, report: Path) -> None:
    browser.get_log("performance")
    browser.get(report.as_uri())
    plots = browser.execute_script(
        OPENED
        + """return [...document.querySelectorAll('figure')].map(figure => {
            const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
            const drawn = [...svg.querySelectorAll('path')].filter(path => path.getBoundingClientRect().width > 20);
            const words = [...svg.querySelectorAll('text')].filter(text => text.getBBox().width > 0);
            const colours = new Set(drawn.map(path => getComputedStyle(path).stroke));
            return [figure.id, box.width, box.height, drawn.length, words.length, colours.size]; })"""
    )
    assert [plot[0] for plot in plots] == [
        f"run0-{name}" for name in ("cdf-0", "cdf-1", "steps", "in-flight", "phases", "timeline", "client", "trace")
    ]
    for name, width, height, drawn, words, colours in plots:
        assert width > 900, name
        assert height > 200, name
        assert drawn >= 5, name
        assert words >= 8, name
        assert colours >= 3, name
    assert requested(browser) == [report.as_uri()]
    assert browser.get_log("browser") == []


def test_it_fits_a_phone_and_a_wide_screen(browser: Any, report: Path) -> None:
    """Wide tables scroll in their own box; the page itself never scrolls sideways."""
    browser.get(report.as_uri())
    for width in (500, 1240, 2200):
        browser.set_window_size(width, 1000)
        inner, scroll = browser.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner
    browser.set_window_size(1240, 2000)


def test_no_column_of_the_planning_page_is_cut(browser: Any, tmp_path: Path) -> None:
    from loadgen.options import Load
    from loadgen.sweeps import sweep
    from targets.simulated.build import SimulatedTarget

    axes = {"speedup": [1.0, 2.0], "link.bandwidth": [1.0, 46.0]}
    names = ["h100", "gpu-prefill+groqrack-decode,pool=1:12"]
    targets = [SimulatedTarget.parse(name) for name in names]
    planning = sweep("azure-conv", targets, axes, Load(duration=5), slo=["ttft p50 < 1s"], out=tmp_path / "plan")
    browser.get((planning.folder / "planning.html").as_uri())
    browser.set_window_size(1280, 2000)
    cut = "return [...document.querySelectorAll('.wide')].map(box => box.scrollWidth - box.clientWidth)"
    assert max(browser.execute_script(cut)) <= 0
    browser.set_window_size(1240, 2000)


def luminance(colour: str) -> float:
    """WCAG 2.1 relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_are_legible(browser: Any, report: Path, scheme: str) -> None:
    """Contrast against the page: 4.5 for text, 3 for what is drawn (WCAG AA)."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(report.as_uri())
    ground, texts, drawn = browser.execute_script(
        OPENED
        + """const colour = (element, name) => getComputedStyle(element)[name];
        const key = number => { const probe = document.createElement('i'); probe.style.color = `var(--t${number})`;
                                document.body.append(probe); return colour(probe, 'color'); };
        return [colour(document.body, 'backgroundColor'),
                [...document.querySelectorAll('p, td, th, li, dd, dt, small, .badge')].map(e => colour(e, 'color'))
                    .concat([...document.querySelectorAll('svg text')].map(e => colour(e, 'fill'))),
                [...Array(8).keys()].map(key)]"""
    )
    page_light = luminance(ground)
    assert (page_light > 0.5) == (scheme == "light")

    def contrast(colour: str) -> float:
        low, high = sorted((luminance(colour), page_light))
        return (high + 0.05) / (low + 0.05)

    assert all(contrast(colour) >= 4.5 for colour in set(texts))
    assert all(contrast(colour) >= 3 for colour in drawn)
    assert len(set(drawn)) == 8


def pages(browser: Any, **more: Any) -> int:
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, **more})["data"]
    return len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed)))


def test_page_one_alone_fits_a_sheet_of_paper(browser: Any, report: Path, rounds: Path) -> None:
    for path in (report, rounds):
        browser.get(path.as_uri())
        assert pages(browser) == 1
    browser.execute_script(OPENED)
    assert pages(browser, printBackground=True) > 3  # what the reader opened is printed too


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_one_reads_at_a_phones_width(browser: Any, rounds: Path, scheme: str) -> None:
    """Nothing of it lies beyond the screen, nor does its table scroll; the verdict has a sign beside its colour."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        browser.get(rounds.as_uri())
        beyond, hidden, verdict, ground = browser.execute_script(
            """const front = document.querySelector('.front');
            return [[...front.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > 390.5).length,
                    [...front.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth),
                    front.querySelector('.badge').innerText, getComputedStyle(document.body).backgroundColor]"""
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    said = json.loads((rounds.parent / "summary.json").read_bytes())["page_one"]
    assert (beyond, hidden) == (0, [0])
    assert verdict == f"✗ FAIL {said['passed']}/{said['gates']}"
    assert (luminance(ground) > 0.5) == (scheme == "light")


def test_a_hostile_run_runs_nothing(browser: Any, hostile: Path) -> None:
    report = hostile / "report.html"
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(report.as_uri())
    assert browser.execute_script("return document.querySelectorAll('script, img').length") == 0
    assert requested(browser) == [report.as_uri()]
    assert browser.get_log("browser") == []
