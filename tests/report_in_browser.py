"""Opens a report of a run (or a compare.html) in a headless browser, as a person would.

At 1280 and at 400 pixels, light and dark: nothing on the console, every image is there without a network,
nothing is wider than the window, and text differs enough from its ground. Writes screenshots where --out says.

    python tests/report_in_browser.py runs/quickstart/report.html --out /tmp/screenshots

Skips with a reason where there is no browser.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    # A page that asks for anything gets nothing: it must not need to.
    "--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>",
)
# Windows are at least this wide; what is narrower is looked at in a frame.
NARROWEST = 500
# What the page looks like from inside: added to a copy of it, read from the DOM afterwards.
PROBE = """<script>addEventListener('load', () => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(c => c / 255)
      .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05); };
  const ground = getComputedStyle(document.body).backgroundColor;
  const texts = [...document.querySelectorAll('h1,h2,h3,p,td,th,li,dt,dd,figcaption,summary')];
  const wide = [...document.querySelectorAll('body > *, figure, .retrieval, .mistakes > *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + '.' + e.className);
  // Tables side by side have room to break their lines; what has to be scrolled to is overlooked.
  const cut = [...document.querySelectorAll('.columns .scroll')].filter(e => e.scrollWidth > e.clientWidth + 1);
  top.document.documentElement.dataset.probe = JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    height: document.documentElement.scrollHeight,
    images: document.images.length,
    absent: [...document.images].filter(i => !i.complete || i.naturalWidth === 0).length,
    charts: document.querySelectorAll('svg.curve').length,
    faint: texts.filter(t => contrast(getComputedStyle(t).color, ground) < 4.5).map(t => t.textContent.slice(0, 30)),
    wide, cut: cut.map(e => e.textContent.slice(0, 30)),
  });
});</script>"""


def browser():
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    return None


def framed(page, text, width, height):
    """The page, or a page with a frame of that width around it."""
    if width < NARROWEST:
        text = ("<!DOCTYPE html><style>:root { color-scheme: light dark } body { margin: 0 } "
                f"iframe {{ border: 0; width: {width}px; height: {height}px }}</style>"
                f'<iframe srcdoc="{html.escape(text)}"></iframe>')
    page.write_text(text)


def run(program, page, size, dark, *more):
    with tempfile.TemporaryDirectory() as profile:
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
        command = [program, *QUIET, *scheme, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", *more]
        return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)


def look(program, page, width, dark, out):
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        probed = Path(folder) / page.name
        framed(probed, page.read_text().replace("</body>", PROBE + "</body>"), width, 900)
        done = run(program, probed, (max(width, NARROWEST), 900), dark, "--dump-dom")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    problems += [f"console: {line}" for line in console]
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    if not found:
        return [*problems, f"the page did not load: {done.stderr[-500:]}"]
    probe = json.loads(html.unescape(found.group(1)))
    if probe["width"] != width or probe["dark"] != dark:
        problems.append(f"the browser did not do as it was told: {probe}")
    if probe["scroll"] > probe["width"]:
        problems.append(f"{probe['scroll']} pixels wide in a window of {probe['width']}: {probe['wide']}")
    if probe["cut"]:
        problems.append(f"tables that are cut off: {probe['cut']}")
    if probe["absent"]:
        problems.append(f"{probe['absent']} of {probe['images']} images are not there")
    if probe["faint"]:
        problems.append(f"hardly readable: {probe['faint'][:5]}")
    if out:
        name = f"{page.stem}-{width}-{'dark' if dark else 'light'}.png"
        height = min(probe["height"], 12_000)
        with tempfile.TemporaryDirectory() as folder:
            shown = Path(folder) / page.name
            framed(shown, page.read_text(), width, height)
            size = (max(width, NARROWEST), height)
            run(program, shown, size, dark, f"--screenshot={(out / name).resolve()}")
    print(f"{page.name} at {width}, {'dark' if dark else 'light'}: {probe['images']} images, {probe['charts']} charts, "
          f"{probe['height']} pixels high, {len(problems)} problems")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    arguments = parser.parse_args()
    program = browser()
    if program is None:
        print(f"skipped: none of {', '.join(BROWSERS)} is installed")
        return
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    problems = []
    for page in arguments.pages:
        for width in (1280, 400):
            for dark in (False, True):
                found = look(program, page.resolve(), width, dark, arguments.out)
                problems += [f"{page} at {width}, {'dark' if dark else 'light'}: {problem}" for problem in found]
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
