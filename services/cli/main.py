"""`cardflow`: one file a command in `services.cli.commands`; this one only names them.

A command's module is imported when it is called, so that `--help` and completion are quick.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from services.kernel.logs import configure_logs

COMMANDS: dict[str, str] = {
    "demo": "The shipped word list from NATS subject to Anki deck, offline.",
    "up": "Run everything on this machine until it is stopped.",
    "estimate": "Calls, tokens, cost and time of a list, before anything is spent.",
    "submit": "Publish terms from files or standard input.",
    "regenerate": "Make the cards of a batch anew, as a revision of it.",
    "check": "Read and validate terms without publishing them.",
    "pronounce": "How Korean words are said: in Hangul as spoken, and in IPA.",
    "verify": "Whether an IPA is how a Korean word is said.",
    "status": "How far a batch is, what it cost, when it will be done.",
    "cancel": "Stop spending on a batch; what is finished stays.",
    "watch": "Follow the finished cards as they come.",
    "export": "Write a deck file from the store.",
    "dead-letters": "List, show, replay and discard what was given up on.",
    "budget": "What may be spent, what was spent, what is left.",
    "cache": "Look at, warm, purge and move the completions that were paid for.",
    "audit": "Account for every term and every call.",
    "limits": "How fast the stages may call, over all replicas; change it.",
    "pause": "Let services begin nothing more until they are resumed.",
    "resume": "Let paused services go on.",
    "drain": "Take no more submissions, finish everything, report.",
    "run": "Run one service (what containers call).",
    "simulate": "Run the offline model provider by itself.",
    "provision": "Make the streams, consumers and buckets, or report drift.",
    "settings": "Every setting, its value and where it comes from.",
    "doctor": "Check this machine and a running pipeline.",
}


class Commands(TyperGroup):
    """Loads a command from `services.cli.commands.<name>` when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"services.cli.commands.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.cli)
        command.name = cmd_name
        command.short_help = COMMANDS[cmd_name]
        return command


cli = typer.Typer(
    cls=Commands,
    name="cardflow",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Korean vocabulary in, verified flashcards out.\n\n"
    "Begin with `cardflow demo`. Then `cardflow up` in one terminal and `cardflow submit "
    "words.csv --wait` in another.",
)


@cli.callback()
def _root() -> None:
    # Standard output is for results alone; `up` and `run` have logs of their own.
    configure_logs("cardflow", level="warning", format="auto")


def main(args: Any = None) -> None:
    """The entry point of the command."""
    cli(args)
