"""Logs: one JSON object a line, no secrets, the level that was asked for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from services.kernel.logs import configure_logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields_and_its_service() -> None:
    out = io.StringIO()
    configure_logs("stage1", level="info", format="json", stream=out)
    structlog.get_logger().info("term.analyzed", term_id="abc", delay_s=1.5, word="책\n둘째 줄")
    [line] = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "term.analyzed",
        "level": "info",
        "service": "stage1",
        "term_id": "abc",
        "delay_s": 1.5,
        "word": "책\n둘째 줄",
    }
    assert "책" in out.getvalue()


@pytest.mark.parametrize(
    "key", ["api_key", "OPENROUTER_API_KEY", "Authorization", "access_token", "password", "secret"]
)
def test_a_secret_is_never_written(key: str) -> None:
    out = io.StringIO()
    configure_logs("stage1", level="info", format="json", stream=out)
    structlog.get_logger().info("call.sent", **{key: "sk-12345"})
    structlog.get_logger().info("call.sent", request={"headers": {key: "sk-12345"}, "url": "u"})
    flat, nested = lines(out)
    assert flat[key] == "[redacted]"
    assert nested["request"] == {"headers": {key: "[redacted]"}, "url": "u"}


def test_redacting_leaves_the_callers_own_values_alone() -> None:
    configure_logs("stage1", level="info", format="json", stream=io.StringIO())
    headers = {"authorization": "Bearer sk-12345"}
    structlog.get_logger().info("call.sent", headers=headers)
    assert headers == {"authorization": "Bearer sk-12345"}


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_nothing_below_the_level_is_written(level: str, written: list[str]) -> None:
    out = io.StringIO()
    configure_logs("ingest", level=level, format="json", stream=out)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)("message.seen")
    assert [line["level"] for line in lines(out)] == written


def test_libraries_log_through_the_same_door_from_warning_on() -> None:
    out = io.StringIO()
    configure_logs("ingest", level="debug", format="json", stream=out)
    logging.getLogger("nats").info("chatter")
    logging.getLogger("nats").warning("slow consumer %s", 7)
    [line] = lines(out)
    assert (line["event"], line["level"], line["service"]) == (
        "slow consumer 7",
        "warning",
        "ingest",
    )


def test_an_exception_is_one_field_of_its_line() -> None:
    out = io.StringIO()
    configure_logs("ingest", level="info", format="json", stream=out)
    try:
        raise ValueError("seen 3, expected 2")
    except ValueError:
        structlog.get_logger().exception("answer.failed")
        logging.getLogger("nats").exception("callback failed")
    ours, theirs = lines(out)
    assert "ValueError: seen 3, expected 2" in ours["exception"]
    assert "ValueError: seen 3, expected 2" in theirs["exception"]


@pytest.mark.parametrize(
    ("format_", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("console", io.StringIO, False),
        ("json", Terminal, True),
    ],
)
def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(
    format_: str, stream: type[io.StringIO], is_json: bool
) -> None:
    out = stream()
    configure_logs("ingest", level="info", format=format_, stream=out)
    structlog.get_logger().info("message.seen", batch="b1")
    assert out.getvalue().startswith("{") is is_json
    assert "message.seen" in out.getvalue()


def test_logs_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("ingest", level="info", format="json")
    structlog.get_logger().info("message.seen")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "message.seen"
