"""The page at `/` in a real browser: a text is tried, a key is asked for, and nothing is fetched from elsewhere."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from compression.bundle import AbstainOptions, NumberOptions
from service.access.keys import add_key
from tests.handmade import make_bundle
from tests.integration.conftest import LiveService, ServiceFactory, serve

pytestmark = pytest.mark.integration

WAIT_SECONDS = 30


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, English, which looks nothing up on its own."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.fail("Chromium is not installed; on Debian: apt-get install chromium chromium-driver")
    chromium, driver = map(str, programs)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", "lang=en-US", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"intl.accept_languages": "en-US"})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser


def shown(browser: webdriver.Chrome, selector: str) -> WebElement:
    """An element, once it can be seen."""

    def visible(_: webdriver.Chrome) -> WebElement | None:
        return next((found for found in browser.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()), None)

    found = WebDriverWait(browser, WAIT_SECONDS).until(visible, f"{selector} is not shown")
    assert isinstance(found, WebElement)
    return found


def try_text(browser: webdriver.Chrome, text: str) -> str:
    """Types a text, asks, and gives what the page says."""
    field = shown(browser, "#text")
    field.clear()
    field.send_keys(text)
    shown(browser, "#question button").click()
    shown(browser, "#answers .verdict")
    return shown(browser, "#answers").text


def fetched(browser: webdriver.Chrome) -> set[str]:
    """Where all that the page consists of, and all that it asked for, came from."""
    script = "return performance.getEntries().filter(e => e.name.includes('://')).map(e => new URL(e.name).origin)"
    return set(browser.execute_script(script))


def test_a_text_is_classified_and_triaged(browser: webdriver.Chrome, live_service: LiveService) -> None:
    browser.get(live_service.url)
    assert "sentiment" in shown(browser, "#models").text
    said = try_text(browser, "great the card is in the post")
    assert "sentiment: positive" in said
    assert "Triage: " in said
    assert "card_arrival" in said
    assert not shown(browser, "body").find_element(By.ID, "login").is_displayed()
    shown(browser, "#language").click()
    assert "分诊" in shown(browser, "#answers").text
    assert browser.execute_script("return document.documentElement.lang") == "zh"
    assert fetched(browser) == {live_service.url}
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_a_label_is_text_whatever_is_in_it(browser: webdriver.Chrome, tmp_path: Path) -> None:
    markup = "<img src=x onerror=document.title='run'>"
    bundle = make_bundle(tmp_path / "bundle", labels=("bad", markup))
    with serve(tmp_path / "service.log", {"LATHE_MODELS": f"sentiment={bundle.path}"}) as service:
        browser.get(service.url)
        shown(browser, "#text").send_keys("good")
        shown(browser, "#question button").click()
        assert markup in shown(browser, "#answers h3").text
    assert markup in shown(browser, "#models").text
    assert browser.find_elements(By.CSS_SELECTOR, "main img") == []
    assert browser.title != "run"


def test_an_answer_that_the_model_abstains_from_says_so(browser: webdriver.Chrome, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "unsure", abstain=AbstainOptions(below=0.8, error=0.05))
    with serve(tmp_path / "service.log", {"LATHE_MODELS": f"mine={bundle.path}"}) as service:
        browser.get(service.url)
        for text, unsure in (("good", False), ("nothing", True)):
            field = shown(browser, "#text")
            field.clear()
            field.send_keys(text)
            shown(browser, "#question button").click()
            WebDriverWait(browser, WAIT_SECONDS).until(
                lambda _, unsure=unsure: ("not sure enough" in shown(browser, "#answers").text) is unsure  # type: ignore[misc]
            )
        shown(browser, "#language").click()
        assert "模型弃答" in shown(browser, "#answers").text


def test_a_number_is_shown_as_it_is(browser: webdriver.Chrome, tmp_path: Path) -> None:
    number = NumberOptions(function="none", spread=2.0)
    bundle = make_bundle(tmp_path / "stars", {"great": (104.56789,)}, ["stars"], number=number)
    with serve(tmp_path / "service.log", {"LATHE_MODELS": f"stars={bundle.path}"}) as service:
        browser.get(service.url)
        assert "gives a number" in shown(browser, "#models").text
        shown(browser, "#text").send_keys("great")
        shown(browser, "#question button").click()
        assert shown(browser, "#answers h3").text == "stars: 104.6"
        said = shown(browser, "#answers").text
    assert "%" not in said
    assert "probabilities" not in said


def test_a_key_is_asked_for_once_and_a_wrong_one_is_said_to_be(
    browser: webdriver.Chrome, service_factory: ServiceFactory, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "shop")
    with service_factory(LATHE_KEYS_FILE=str(tmp_path / "keys.json")) as service:
        browser.get(service.url)
        for tried, then in (("lathe_wrong", "#failed"), (key, "#models .card")):
            shown(browser, "#key").send_keys(tried)
            shown(browser, "#login button").click()
            shown(browser, then)
        assert "positive" in try_text(browser, "great")
        browser.refresh()
        shown(browser, "#models .card")
        assert fetched(browser) == {service.url}


def test_a_narrow_window_cuts_nothing(browser: webdriver.Chrome, live_service: LiveService) -> None:
    browser.set_window_size(420, 800)
    browser.get(live_service.url)
    try_text(browser, "great " * 30)
    widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    needed, there = browser.execute_script(widths)
    assert needed <= there


def test_a_second_box_is_there_where_a_model_reads_pairs(browser: webdriver.Chrome, tmp_path: Path) -> None:
    pairs, texts = make_bundle(tmp_path / "nli", inputs="pairs"), make_bundle(tmp_path / "plain")
    models = f"sentiment={texts.path},banking-intents={texts.path},nli={pairs.path}"
    settings = {"LATHE_MODELS": models, "LATHE_HAND_OVER_INTENTS": ""}
    with serve(tmp_path / "service.log", settings) as service:
        browser.get_log("browser")  # type: ignore[no-untyped-call]  # what other tests left
        browser.get(service.url)
        assert "reads pairs of texts" in shown(browser, "#models").text
        assert not browser.find_element(By.ID, "text_pair").is_displayed()
        assert "Triage" in try_text(browser, "good")
        Select(shown(browser, "#model")).select_by_visible_text("nli")
        shown(browser, "#text_pair").send_keys("good")
        shown(browser, "#text").clear()
        shown(browser, "#text").send_keys("bad")
        shown(browser, "#question button").click()
        WebDriverWait(browser, WAIT_SECONDS).until(lambda _: "nli: negative" in shown(browser, "#answers").text)
        assert "Triage" not in shown(browser, "#answers").text
        assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
        Select(shown(browser, "#model")).select_by_visible_text("sentiment")
        assert not browser.find_element(By.ID, "text_pair").is_displayed()
        assert "Triage" in try_text(browser, "good")
