"""A headless Chromium, and what JupyterLab's API is asked for."""

from __future__ import annotations

import json
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from selenium import webdriver

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, which goes with it."""
    from selenium import webdriver  # late, as it is slow to import

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = webdriver.ChromeOptions()
        for argument in (*_ARGUMENTS, f"--user-data-dir={folder}"):
            options.add_argument(argument)
        options.binary_location = "/usr/bin/chromium"
        driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            driver.set_page_load_timeout(60)
            yield driver
        finally:
            driver.quit()


def shown(browser: webdriver.Chrome, selector: str) -> None:
    """Waits until the page has an element that the CSS selector fits; a minute at most."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))


def pane_of_dask(browser: webdriver.Chrome, notebook_url: str, link: str) -> str:
    """Opens a pane of dask-labextension for the dashboard at `link`, as a person does, and waits
    until it shows a plot; the pane's address."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    tab, field = "li[data-id='dask-dashboard-launcher']", "#dask-dashboard-launcher input"
    button = ".dask-DashboardListing-item button[value='Task Stream']:not([disabled])"
    browser.get(notebook_url)
    shown(browser, tab)
    browser.find_element(By.CSS_SELECTOR, tab).click()
    shown(browser, field)
    browser.find_element(By.CSS_SELECTOR, field).send_keys(link, Keys.ENTER)
    shown(browser, button)
    browser.find_element(By.CSS_SELECTOR, button).click()
    shown(browser, "iframe")
    browser.switch_to.frame(browser.find_element(By.CSS_SELECTOR, "iframe"))
    shown(browser, ".bk-Figure")
    return str(browser.execute_script("return location.href"))


def run_in_kernel(notebook_url: str, code: str, timeout: float = 120) -> str:
    """Runs `code` in a new kernel of the JupyterLab at `notebook_url`; what it printed."""
    import websocket

    parts = urlsplit(notebook_url)
    token = parse_qs(parts.query)["token"][0]
    request = urllib.request.Request(
        f"http://{parts.netloc}/api/kernels",
        data=b"{}",
        headers={"Authorization": f"token {token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        kernel = json.load(answer)["id"]
    channel = websocket.create_connection(
        f"ws://{parts.netloc}/api/kernels/{kernel}/channels",
        header=[f"Authorization: token {token}"],
        timeout=timeout,
    )
    try:
        channel.send(json.dumps(_execute(code)))
        return _printed(channel)
    finally:
        channel.close()


def _execute(code: str) -> dict[str, Any]:
    return {
        "header": {
            "msg_id": uuid.uuid4().hex,
            "username": "test",
            "session": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {"code": code, "silent": False, "store_history": False},
    }


def _printed(channel: Any) -> str:
    text = ""
    while True:
        message = json.loads(channel.recv())
        kind = message["msg_type"]
        if kind == "stream":
            text += message["content"]["text"]
        elif kind == "error":
            raise AssertionError("\n".join(message["content"]["traceback"]))
        elif kind == "execute_reply":
            return text
