"""Uses the page of `flip serve` in a headless browser, as a person would.

Types a text, drops an image, clicks on one that was found, sends what is no image; at 1280 and at 400 pixels, light and dark:
nothing on the console, every image is there, nothing is wider than the window.

    flip serve runs/mine --images holiday &
    python tests/search_in_browser.py http://127.0.0.1:8017/ --out /tmp/screenshots

Skips with a reason where there is no browser.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report_in_browser import browser

WITHIN_S = 60


class Browser:
    """Chromium that is told what to do over a pipe."""

    def __init__(self, program, profile):
        into, self.write = os.pipe()
        self.read, out = os.pipe()
        # The browser reads what it is told from 3 and answers on 4.
        low = [os.dup(into), os.dup(out)]
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync",
                   f"--user-data-dir={profile}", "about:blank"]
        shell = ["sh", "-c", f'exec 3<&{low[0]} 4>&{low[1]} "$@"', "sh", *command]
        self.process = subprocess.Popen(shell, pass_fds=low, stderr=subprocess.DEVNULL)
        for handle in (into, out, *low):
            os.close(handle)
        self.rest, self.number, self.events, self.session = b"", 0, [], None

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.read, 1 << 20)
            if not more:
                sys.exit("the browser went away")
            self.rest += more
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    sys.exit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self):
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def value(self, script):
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            sys.exit(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, script, what):
        began = time.monotonic()
        # While a page is left for another, nothing is there.
        script = f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()"
        while not self.value(script):
            if time.monotonic() - began > WITHIN_S:
                sys.exit(f"{what}: nothing within {WITHIN_S} s; the page says {self.value('document.body.innerText')!r}")
            time.sleep(0.1)

    def complaints(self):
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"])[:300] for event in self.events if event.get("method") in kinds]


LOADED = """[...document.images].filter(i => i.src && i.checkVisibility() && i.getBoundingClientRect().top < innerHeight).every(i => i.complete && i.naturalWidth > 0)
    && document.querySelectorAll('#found figure').length > 0"""
SETTLED = "document.getElementById('note').textContent !== 'Searching ...'"


def look(page, url, width, dark, out):
    problems = []
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.call("Emulation.setEmulatedMedia", features=scheme)
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.call("Page.navigate", url=url)
    page.wait("document.readyState === 'complete' && document.getElementById('about').textContent.includes('images')", "start")

    def shot(name):
        if out:
            data = page.call("Page.captureScreenshot", format="png")["data"]
            (out / f"serve-{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(base64.b64decode(data))

    page.value("document.getElementById('text').focus()")
    page.call("Input.insertText", text="a red circle")
    page.value("document.querySelector('#form button').click()")
    page.wait(LOADED, "a text")
    shot("text")
    found = "[...document.querySelectorAll('#found .name')].map(e => e.textContent)"
    by_text = page.value(found)
    page.value("document.querySelector('#found figure:nth-child(2) button').click()")
    page.wait(f"{SETTLED} && !document.getElementById('asked').hidden && {LOADED}", "a click")
    near = page.value(found)
    if by_text[1] in near or not near:
        problems.append(f"the images like {by_text[1]} are {near}")
    # A file that is dropped, and one that is no image.
    drop = """(async (path, type) => {
        const blob = await (await fetch(path)).blob(), carried = new DataTransfer();
        carried.items.add(new File([blob], 'dropped', { type }));
        dispatchEvent(new DragEvent('dragover', { dataTransfer: carried }));
        const marked = document.body.classList.contains('over');
        dispatchEvent(new DragEvent('drop', { dataTransfer: carried }));
        return marked && !document.body.classList.contains('over');
    })"""
    id_of_first = "new URL(document.querySelector('#found a').href).search"
    page.value("document.getElementById('text').value = 'a red circle'; document.querySelector('#form button').click()")
    page.wait(f"{SETTLED} && document.getElementById('asked').hidden && {LOADED}", "a second text")
    name = page.value(found)[0]
    if not page.value(f"{drop}('image' + {id_of_first}, 'image/png')"):
        problems.append("dragging over the page is not shown")
    page.wait(f"{SETTLED} && !document.getElementById('asked').hidden && {LOADED}", "a drop")
    shot("drop")
    if page.value(found)[0] != name or "1.000" not in page.value("document.querySelector('#found .score').textContent"):
        problems.append(f"{name} is not what is nearest to itself: {page.value(found)[:3]}")
    page.value(f"{drop}('page.css', 'image/png')")
    page.wait(f"{SETTLED} && document.getElementById('note').textContent.includes('not an image')", "no image")
    refused = [line for line in page.complaints() if "400" in line]
    page.events.clear()
    if not refused:
        problems.append("what is no image was not refused")
    page.call("Page.navigate", url="about:blank")
    page.wait("location.href === 'about:blank' && document.readyState === 'complete'", "a blank page")
    page.call("Page.navigate", url=f"{url}#two%20dogs{'%20again' * 100}")
    page.wait(f"{SETTLED} && {LOADED} && document.getElementById('note').textContent.includes('tokens')", "a long text")
    scroll = page.value("document.documentElement.scrollWidth")
    if scroll > width:
        problems.append(f"{scroll} pixels wide in a window of {width}")
    problems += page.complaints()
    page.events.clear()
    print(f"{url} at {width}, {'dark' if dark else 'light'}: {len(by_text)} images, {len(problems)} problems")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--out", type=Path, help="folder for screenshots")
    arguments = parser.parse_args()
    program = browser()
    if program is None:
        print("skipped: no browser is installed")
        return
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    problems = []
    with tempfile.TemporaryDirectory() as profile:
        page = Browser(program, profile)
        try:
            page.open()
            for width in (1280, 400):
                for dark in (False, True):
                    problems += look(page, arguments.url, width, dark, arguments.out)
        finally:
            page.process.terminate()
            page.process.wait()
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
