"""`cardflow doctor`: this machine and a running pipeline, and what to do about what is wrong."""

from __future__ import annotations

import locale
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

from services.cli.common import (
    DEFAULT_DATA,
    ENDPOINTS,
    FAILED,
    DataOption,
    JsonOption,
    NatsOption,
    nats_url,
    out,
    print_json,
    read_endpoints,
    run,
)
from services.cli.machine.machine_checks import (
    Finding,
    check_disk,
    check_encoding,
    check_open_files,
    check_provider,
    check_python,
    check_server_binary,
)
from services.cli.machine.nats_server import binary
from services.cli.machine.pipeline_checks import check_nats, check_services, skipped
from services.kernel.errors import SettingsError
from services.kernel.model_settings import ModelSettings
from services.kernel.settings import load_settings

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}

cli = typer.Typer(add_completion=False)


@cli.command()
def doctor(
    *,
    data: DataOption = None,
    nats: NatsOption = None,
    json: JsonOption = False,
) -> None:
    """Check this machine, and a pipeline when one runs; exit 1 when something would not work.

    Without a pipeline its checks are skipped. Nothing is changed, no key is shown.

    \b
    cardflow doctor
    cardflow doctor --data cardflow-data --json
    """
    findings = [*machine_findings(data or DEFAULT_DATA), *run(pipeline_findings(data, nats))]
    healthy = not any(finding.verdict == "fail" for finding in findings)
    if json:
        print_json({"healthy": healthy, "checks": [asdict(finding) for finding in findings]})
    else:
        out.print(_table(findings))
    if not healthy:
        raise typer.Exit(FAILED)


def machine_findings(folder: Path) -> list[Finding]:
    return [
        check_python(tuple(sys.version_info[:3])),
        check_server_binary(binary),
        check_disk(str(folder), shutil.disk_usage(_existing(folder)).free),
        check_open_files(open_files_limit()),
        check_encoding(locale.getpreferredencoding(do_setlocale=False)),
        check_provider(lambda: load_settings(ModelSettings)),
    ]


async def pipeline_findings(data: Path | None, nats: str | None) -> list[Finding]:
    """What is found in the pipeline that is named, or that runs on the usual folder."""
    folder = data or DEFAULT_DATA
    try:
        url = nats_url(data, nats)
        endpoints = _endpoints(folder, url)
    except SettingsError as error:
        if data is not None or nats is not None:
            return [Finding("nats", "fail", str(error)), *skipped("NATS can't be asked")[1:]]
        return skipped("no pipeline runs here")
    return [*await check_nats(url), *await check_services(endpoints.get("services", []))]


def _endpoints(folder: Path, url: str) -> dict[str, Any]:
    """What `cardflow up` says of its services, when it is the one that is looked at."""
    endpoints = read_endpoints(folder) if (folder / ENDPOINTS).is_file() else {}
    return endpoints if endpoints.get("nats_url") == url else {}


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def open_files_limit() -> int | None:
    """The soft limit of this process; None where there is none."""
    try:
        import resource
    except ImportError:  # pragma: no cover  (Windows)
        return None
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        story = Text(finding.seen)
        if finding.advice:
            story.append(f"\n→ {finding.advice}", style="italic")
        table.add_row(Text(finding.verdict, _STYLES[finding.verdict]), finding.name, story)
    return table
