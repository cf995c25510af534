"""The import rule and the sizes of the house, checked on the source; and the check checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from house_rules import MAY_IMPORT, violations

REPOSITORY = Path(__file__).parents[2]


def test_the_source_keeps_the_rules_of_the_house() -> None:
    assert violations(REPOSITORY) == []


def test_every_room_of_the_house_has_a_rule_and_every_rule_a_room() -> None:
    services = REPOSITORY / "services"
    rooms = {path.name for path in services.iterdir() if (path / "__init__.py").is_file()}
    kernel = {
        f"kernel.{path.stem}"
        for path in (services / "kernel").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert (rooms - {"kernel"}) | (kernel - {"kernel.__init__"}) == set(MAY_IMPORT)


def plant(root: Path, module: str, source: str) -> None:
    path = root / "services" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


SOUND = [
    ("kernel/__init__.py", ""),
    ("kernel/probes.py", "from services.kernel.metrics import Metrics\nimport prometheus_client\n"),
    (
        "kernel/contracts/card.py",
        "from .base import Contract\nfrom services.kernel import errors\n",
    ),
    (
        "kernel/stream/delivery.py",
        "import faststream, nats\nfrom services.kernel import settings\n",
    ),
    ("kernel/llm/http_provider.py", "import httpx\n"),
    ("kernel/settings.py", "import os\nkey = os.environ['KEY']\n"),
    ("kernel/app.py", "from faststream.nats import NatsBroker\nfrom .stream import delivery\n"),
    ("stage1/app.py", "import faststream\nfrom services.stage1 import handler\n"),
    ("stage1/handler.py", "from services.kernel.llm.asker import Asker\nimport json\n"),
    ("simulator/app.py", "from services.kernel.errors import SettingsError\n"),
    ("cli/run.py", "import os, httpx\nfrom services.stage1.app import app\nos.getenv('X')\n"),
    ("cli/main.py", "import importlib\nimportlib.import_module('services.cli.commands.run')\n"),
    ("exporter/store.py", "import aiosqlite\n"),
    ("exporter/nats_like.py", "import natsort\n"),
]


def test_what_the_rules_allow_passes(tmp_path: Path) -> None:
    for module, source in SOUND:
        plant(tmp_path, module, source)
    assert violations(tmp_path) == []


def lines(count: int) -> str:
    return "x = 1\n" * count


def function(length: int) -> str:
    return "class C:\n    async def long(self):\n" + "        x = 1\n" * (length - 1)


PLANTED = [
    # layers
    ("kernel/errors.py", "from services.stage1 import handler\n", "kernel.errors may not import"),
    ("kernel/app.py", "import services.exporter.store\n", "kernel.app may not import"),
    ("kernel/korean/hangul.py", "from services.kernel.contracts import card\n", "may not import"),
    ("kernel/topology.py", "from services.kernel import settings\n", "may not import"),
    ("kernel/contracts/card.py", "from services.kernel.stream import retry\n", "may not import"),
    ("kernel/contracts/card.py", "from ..stream.retry import Retry\n", "may not import"),
    ("kernel/contracts/__init__.py", "from ..app import Frame\n", "may not import"),
    ("kernel/settings.py", "from services.kernel.app import Frame\n", "may not import"),
    ("kernel/llm/asker.py", "from services.kernel.stream import attempts\n", "may not import"),
    ("kernel/stream/retry.py", "from services.kernel.llm import asker\n", "may not import"),
    ("kernel/stream/delivery.py", "from services.kernel.app import Frame\n", "may not import"),
    ("simulator/app.py", "from services.stage1.prompt import AnalysisReply\n", "may not import"),
    ("stage1/handler.py", "from services.stage2.handler import x\n", "stage1 may not import"),
    ("ingest/handler.py", "from services import exporter\n", "ingest may not import"),
    ("exporter/handler.py", "from services.cli.common import out\n", "may not import"),
    (
        "stage1/handler.py",
        "import typing\nif typing.TYPE_CHECKING:\n    from services.stage2 import handler\n",
        "may not import services.stage2.handler",
    ),
    ("stage2/handler.py", "def late():\n    import services.ingest.app\n", "may not import"),
    ("common/app.py", "", "no rule knows the room common"),
    ("kernel/extras.py", "", "no rule knows the room kernel.extras"),
    ("stage1/app.py", "from importlib import import_module\nimport_module('x')\n", "by name"),
    ("kernel/app.py", "__import__('services.stage1')\n", "imports by name"),
    # libraries
    ("stage1/extra.py", "from faststream import Context\n", "may not know faststream"),
    ("kernel/llm/asker.py", "import faststream.nats\n", "may not know faststream"),
    ("stage1/app.py", "import httpx\n", "may not know httpx"),
    ("exporter/writer.py", "import aiosqlite\n", "may not know aiosqlite"),
    ("kernel/app.py", "from prometheus_client import Counter\n", "may not know prometheus_client"),
    ("stage1/handler.py", "import nats\n", "must not know nats"),
    ("stage1/prompt.py", "from nats.js import JetStreamContext\n", "must not know nats"),
    ("stage2/checks.py", "import httpx\n", "know httpx"),
    ("kernel/stream/retry.py", "import faststream\n", "must not know faststream"),
    ("kernel/stream/retry.py", "import nats.errors\n", "must not know nats"),
    ("kernel/korean/hangul.py", "import nats\n", "must not know nats"),
    ("kernel/contracts/card.py", "import nats\n", "must not know nats"),
    # the environment
    ("stage1/app.py", "import os\nos.environ.get('KEY')\n", "reads the environment"),
    ("kernel/logs.py", "import os\nlevel = os.getenv('LEVEL')\n", "reads the environment"),
    ("kernel/logs.py", "from os import environ\n", "reads the environment"),
    ("kernel/logs.py", "from os import getenv as g\n", "reads the environment"),
    ("simulator/app.py", "import os as system\nsystem.environ\n", "reads the environment"),
    # names and sizes
    ("stage1/prompt_manager.py", "", "its name says manager"),
    ("stage1/utils.py", "", "its name says utils"),
    ("stage1/helpers/io.py", "", "its name says helper"),
    ("stage1/prompt_v2.py", "", "its name says _v2"),
    ("stage1/enhanced_prompt.py", "", "its name says enhanced"),
    ("stage1/ModernPrompt.py", "", "its name says modern"),
    ("stage1/unified.py", "", "its name says unified"),
    ("stage1/prompt.py", lines(301), "301 lines, over 300"),
    ("stage1/prompt.py", function(61), "long has 61 lines, over 60"),
]


@pytest.mark.parametrize(("module", "source", "fault"), PLANTED)
def test_a_planted_violation_is_found(module: str, source: str, fault: str, tmp_path: Path) -> None:
    plant(tmp_path, module, source)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert fault in found[0]


@pytest.mark.parametrize("source", [lines(300), function(60)])
def test_the_bounds_themselves_are_allowed(source: str, tmp_path: Path) -> None:
    plant(tmp_path, "stage1/prompt.py", source)
    assert violations(tmp_path) == []
