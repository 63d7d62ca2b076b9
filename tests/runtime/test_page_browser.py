"""The page in a real browser: what people see, and that its switches switch."""

import math
import re
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from proscale_deploy.runtime.page.serve import PageServer
from support.chromium import PROGRAM, Browser, chromium
from support.pages import MANIFEST, HandStream, port_of, serving, wait_until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt install chromium")

TEXT = "document.querySelector({!r})?.textContent"
CORNER = """(() => {
  const canvas = document.createElement("canvas"), picture = document.querySelector("#live");
  if (!picture || picture.hidden) return -1;
  canvas.width = canvas.height = 1;
  canvas.getContext("2d").drawImage(picture, 2, 2, 1, 1, 0, 0, 1, 1);
  return canvas.getContext("2d").getImageData(0, 0, 1, 1).data[1];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, chromium(Path(folder)) as browser:
        yield browser


@pytest.fixture
def stream() -> HandStream:
    return HandStream()


@pytest.fixture
def page(stream: HandStream, browser: Browser) -> Iterator[PageServer]:
    """Open in the browser, with one frame to see."""
    with serving(stream) as server:
        stream.run(server)
        browser.problems.clear()
        browser.resize(1280, 800)
        browser.open(server.url)
        browser.wait_for(f"{CORNER} > 0")
        yield server
        assert browser.problems == []
        browser.open("about:blank")


def text(browser: Browser, selector: str) -> str:
    return str(browser.evaluate(TEXT.format(selector))).strip()


def test_what_is_seen(page: PageServer, stream: HandStream, browser: Browser) -> None:
    assert text(browser, "#title") == "rtsp://10.0.0.7/front"
    assert text(browser, "#model").startswith("PRO-SCALE 3-3-3, ResNet-50 · FP16 · 96 × 64")
    assert (text(browser, "#state"), text(browser, "#fps"), text(browser, "#age")) == ("Running", "25", "42ms")
    legend = browser.evaluate("[...document.querySelectorAll('#legend li')].map(e => e.innerText.split(/\\s+/))")
    shares = {name: share for name, share, _ in legend}
    assert shares == {"road": "43.8", "sky": "41.7", "car": "12.5"}
    swatch = "getComputedStyle(document.querySelector('#legend li:nth-child(3) .swatch')).backgroundColor"
    assert browser.evaluate(swatch) == "rgb(0, 0, 142)"
    assert (
        re.sub(r"\s+", " ", text(browser, "#stages")) == "Decode2.0 msPreprocess1.0 msInference30.0 msPostprocess4.0 ms"
    )
    browser.wait_for("/L/.test(document.querySelector('#fps-plot path').getAttribute('d'))")
    assert "Last minute: from" in browser.evaluate("document.querySelector('#age-plot').ariaLabel")


def test_names_are_text_whatever_they_hold(stream: HandStream, browser: Browser) -> None:
    name = "<img src=x onerror='document.title=1'>&amp;" + 60 * "w"
    manifest = replace(
        MANIFEST, classes=tuple(replace(info, name=name) for info in MANIFEST.classes), architecture=name
    )
    with PageServer(("127.0.0.1", 0), manifest, name, stream.stats, stream.switch) as page:
        stream.run(page)
        stream.now = replace(stream.now, state="reconnecting", message=name)
        browser.problems.clear()
        browser.open(page.url)
        browser.wait_for(TEXT.format("#state") + " === 'Reconnecting'")
        assert text(browser, "#title") == name
        assert text(browser, "#model").startswith(name)
        assert text(browser, "#notice").startswith(name)
        assert text(browser, "#legend li:nth-child(1) span:nth-child(2)") == name
        assert browser.evaluate("document.images.length") == 1
        for width in (320, 700, 1280):
            browser.resize(width, 900)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('#classes'))") == 0
        assert browser.problems == []
        browser.open("about:blank")


def test_the_picture_is_live(page: PageServer, stream: HandStream, browser: Browser) -> None:
    for grey in (30, 220, 120):
        stream.run(page, grey)
        browser.wait_for(f"Math.abs({CORNER} - {grey}) < 6")
    stream.now = replace(stream.now, dropped=1234)
    browser.wait_for(TEXT.format("#dropped") + " === '1,234'")


def test_the_task_is_switched_by_a_click_and_by_keys(page: PageServer, stream: HandStream, browser: Browser) -> None:
    checked = "document.querySelector('#tasks input:checked').value"
    assert browser.evaluate(checked) == "panoptic"
    browser.click("#tasks label:nth-child(3)")
    wait_until(lambda: stream.task == "semantic")
    stream.run(page)
    browser.wait_for(f"{checked} === 'semantic'")
    browser.press("ArrowLeft")
    wait_until(lambda: stream.task == "instance")
    stream.run(page)
    browser.wait_for("document.querySelector('#legend li:nth-child(3)').innerText.includes('×2')")
    assert text(browser, "#legend li:nth-child(1) .share") == "–", "only cars are instances"


def test_a_refused_switch_is_told_and_taken_back(page: PageServer, stream: HandStream, browser: Browser) -> None:
    stream.refusal = "the model was not trained for it"
    browser.click("#tasks label:nth-child(2)")
    browser.wait_for(TEXT.format("#problem") + f" === 'Not changed: {stream.refusal}'")
    browser.wait_for("document.querySelector('#tasks input:checked').value === 'panoptic'")
    assert any("409" in problem for problem in browser.problems), "Chromium logs it"
    browser.problems.clear()


def test_the_opacity_is_changed_by_a_click_and_by_keys(page: PageServer, stream: HandStream, browser: Browser) -> None:
    """Seen in the middle of the sky (70, 130, 180) over grey 100."""
    sky = CORNER.replace("2, 2, 1, 1, 0", "70, 8, 1, 1, 0")
    browser.wait_for(f"Math.abs({sky} - 115) < 6")
    browser.click("#opacity")
    browser.press("ArrowRight")
    browser.wait_for(TEXT.format("#opacity-value") + " === '55 %'")
    for _ in range(9):
        browser.press("ArrowRight")
    browser.wait_for(TEXT.format("#opacity-value") + " === '100 %'")
    browser.wait_for(f"Math.abs({sky} - 130) < 6")


def test_an_answer_of_before_a_change_does_not_take_it_back(page: PageServer, browser: Browser) -> None:
    """A status that was asked for before the change, and comes after it."""
    browser.evaluate("""(() => {
      const real = window.fetch;
      window.fetch = async (path, ...rest) => {
        const answer = await real(path, ...rest);
        window.waiting = path === "/api/status";
        while (window.waiting && !window.released) await new Promise((done) => setTimeout(done, 10));
        return answer;
      };
      window.values = [];
      setInterval(() => window.values.push(document.querySelector("#opacity").valueAsNumber), 5);
    })()""")
    browser.wait_for("window.waiting")
    browser.evaluate("document.querySelector('#opacity').focus()")
    browser.press("ArrowRight")
    wait_until(lambda: page._picture.opacity == 0.55)
    browser.evaluate("new Promise((done) => setTimeout(done, 200)).then(() => { window.released = true; })")
    browser.evaluate("new Promise((done) => setTimeout(done, 300))")
    values = browser.evaluate("window.values.slice(window.values.indexOf(55))")
    assert set(values) == {55}


def test_a_second_window_follows(page: PageServer, browser: Browser) -> None:
    browser.evaluate(
        "fetch('/api/settings', {method: 'POST', headers: {'Content-Type': 'application/json'}, "
        "body: JSON.stringify({opacity: 0.2, task: 'semantic'})}).then(r => r.status)"
    )
    browser.wait_for(TEXT.format("#opacity-value") + " === '20 %'")
    browser.wait_for("document.querySelector('#tasks input:checked').value === 'semantic'")


def test_a_frame_can_be_saved(page: PageServer, stream: HandStream, browser: Browser, tmp_path: Path) -> None:
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.click("#save")
    wait_until(lambda: any(tmp_path.glob("front_20*.jpg")))
    (saved,) = tmp_path.glob("front_20*.jpg")
    image = cv2.imread(str(saved))
    assert image is not None
    assert image.shape == (60, 80, 3)


def test_a_lost_source_is_seen(page: PageServer, stream: HandStream, browser: Browser) -> None:
    stream.now = replace(stream.now, state="reconnecting", message="no frame for 5 s", frames_per_second=0.0)
    browser.wait_for(TEXT.format("#state") + " === 'Reconnecting'")
    assert re.fullmatch(r"no frame for 5 s – last frame \d+ s ago", text(browser, "#notice"))
    assert text(browser, "#fps") == "0.0"
    assert browser.evaluate("document.title") == "Reconnecting: rtsp://10.0.0.7/front"
    assert "grayscale" in browser.evaluate("getComputedStyle(document.querySelector('#live')).filter")
    stream.run(page)
    browser.wait_for("document.querySelector('#notice').hidden")
    assert browser.evaluate("document.title") == "rtsp://10.0.0.7/front"


def test_a_picture_that_was_cut_off_comes_back(page: PageServer, stream: HandStream, browser: Browser) -> None:
    """Browsers do not tell a page that such a picture has come to its end."""
    (first,) = page._picture.viewers
    for connection, state in list(page._server._connections.items()):
        if state.expected == math.inf:
            connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: bool(stream.run(page)) and first not in page._picture.viewers)
    stream.run(page, grey=180)
    browser.wait_for(f"Math.abs({CORNER} - 180) < 6")


def test_another_program_at_the_same_address_reloads_the_page(browser: Browser) -> None:
    before, after = HandStream(), HandStream()
    with serving(before) as first:
        before.run(first)
        port = port_of(first)
        browser.open(first.url)
        browser.wait_for(f"{CORNER} > 0")
    browser.wait_for(TEXT.format("#state") + " === 'No connection'")
    assert text(browser, "#notice").startswith("The machine does not answer")
    with serving(after, title="other", port=port) as second:
        after.run(second)
        browser.wait_for(TEXT.format("#title") + " === 'other'")
        browser.wait_for(f"{CORNER} > 0")
        browser.open("about:blank")
    browser.problems.clear()  # of the time in between


def test_a_hidden_page_is_not_drawn_for(page: PageServer, stream: HandStream, browser: Browser) -> None:
    turn = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}}) && "
    turn += "document.dispatchEvent(new Event('visibilitychange'))"
    browser.evaluate(turn.format("true"))
    wait_until(lambda: bool(stream.run(page)) and page._picture.viewers == [])
    browser.evaluate(turn.format("false"))
    browser.wait_for(f"{CORNER} > 0")


def test_no_width_scrolls_sideways(page: PageServer, stream: HandStream, browser: Browser) -> None:
    stream.now = replace(stream.now, frames=12_345_678, dropped=2_345_678, reconnects=1234, corrupt=1234)
    browser.wait_for(TEXT.format("#corrupt") + " === '1,234'")
    for width, height in ((320, 900), (390, 900), (640, 360), (844, 390), (768, 1024), (1280, 900), (3840, 2160)):
        browser.resize(width, height)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('#figures'))") == 0
        for element in ("#live", "#fps", "#age", "#tasks", "#opacity", "#save", "#legend", "#fps-plot", "#stages"):
            box = browser.evaluate(f"document.querySelector('{element}').getBoundingClientRect().toJSON()")
            assert box["left"] >= 0
            assert box["right"] <= width
            assert box["width"] > 0


CONTRASTS = """(() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => rgb(color).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => rgb(getComputedStyle(e).backgroundColor)[3] === 0 ? ground(e.parentElement)
    : getComputedStyle(e).backgroundColor;
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  return texts.map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.id || e.className || e.textContent];
  });
})()"""


def test_text_can_be_read(page: PageServer, stream: HandStream, browser: Browser) -> None:
    """Contrast as WCAG 2.2 defines and asks for (AA)."""
    for state in ("running", "reconnecting"):
        stream.now = replace(stream.now, state=state, message="" if state == "running" else "no frame for 5 s")
        browser.wait_for(f"document.querySelector('#state').dataset.state === '{state}'")
        for scheme in ("light", "dark"):
            browser.resize(1280, 800, scheme)
            contrasts = browser.evaluate(CONTRASTS)
            assert len(contrasts) > 25
            assert [found for found in contrasts if found[0] < 4.5] == []


def test_every_control_has_a_name_and_is_reached_by_the_tab_key(page: PageServer, browser: Browser) -> None:
    names = []
    for _ in range(3):
        browser.press("Tab")
        assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        names.append(browser.evaluate("(e => e.textContent || e.labels[0].textContent)(document.activeElement)"))
    assert names == ["Panoptic", "Opacity", "Save this frame"]


def test_a_phone_on_its_side_shows_the_figures_beside_the_picture(page: PageServer, browser: Browser) -> None:
    browser.resize(844, 390)
    box = "document.querySelector('{}').getBoundingClientRect().toJSON()"
    picture, figures = (browser.evaluate(box.format(element)) for element in ("#view", "#figures"))
    assert figures["left"] >= picture["right"]
    assert max(figures["bottom"], picture["bottom"]) <= 390


def test_the_page_as_it_is_painted(page: PageServer, browser: Browser) -> None:
    """Dark and light differ, and the sky of the picture is where the picture is."""
    grounds = []
    for scheme in ("light", "dark"):
        browser.resize(1280, 800, scheme)
        shot = cv2.imdecode(np.frombuffer(browser.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert shot is not None
        assert shot.shape == (800, 1280, 3)
        grounds.append(shot[-2, 2].mean())
        box = browser.evaluate("document.querySelector('#live').getBoundingClientRect().toJSON()")
        sky = shot[int(box["y"] + 0.13 * box["height"]), int(box["x"] + 0.9 * box["width"])]
        np.testing.assert_allclose(sky, (140, 115, 85), atol=12)
    assert grounds[0] > 200
    assert grounds[1] < 50
