"""Terms a second from publish to stored cards, beside what a script without guarantees reaches.

    python tests/bench/end_to_end.py [--terms 1000] [--latency-ms 50]

The baseline asks the same simulator the same two questions a term, as many at once, with httpx
in one process: no broker, no cache, no ledger, nothing stored. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import nats

sys.path.insert(0, str(Path(__file__).parent.parent))

from running_pipeline import Pipeline, invented_words, running_pipeline

from services.kernel.contracts.analysis import TermAnalyzed
from services.kernel.contracts.base import Batch, TermId
from services.kernel.contracts.provenance import StageProvenance, Usage
from services.kernel.contracts.term import TermAccepted
from services.kernel.llm.prompt import Prompt, completion_request
from services.kernel.llm.reply import read_reply
from services.kernel.provider_access import ProviderAccess
from services.stage1.checks import checked_analysis
from services.stage1.prompt import AnalysisReply, analysis_prompt
from services.stage2.checks import checked_cards
from services.stage2.prompt import CardsReply, cards_prompt

CONCURRENCY = 16  # Of each stage, as in the default settings.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--terms", type=int, default=1000)
    parser.add_argument("--latency-ms", type=float, default=50)
    arguments = parser.parse_args()
    words = invented_words(arguments.terms)
    flags = ("--latency-ms", str(arguments.latency_ms), "--jitter-ms", "20")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_pipeline(Path(folder) / "data", *flags) as pipeline,
    ):
        first = pipeline_seconds(pipeline, words, "first")
        cached = pipeline_seconds(pipeline, words, "cached")
        baseline = asyncio.run(script_seconds(pipeline, words))
    ideal = arguments.terms * arguments.latency_ms / 1000 / CONCURRENCY
    print(
        json.dumps(
            {
                "benchmark": "end_to_end",
                "terms": arguments.terms,
                "latency_ms": arguments.latency_ms,
                "terms_per_s": round(arguments.terms / first, 1),
                "terms_per_s_cached": round(arguments.terms / cached, 1),
                "baseline_terms_per_s": round(arguments.terms / baseline, 1),
                "ratio_to_baseline": round(baseline / first, 3),
                "ratio_to_latency_bound": round(ideal / first, 3),
            }
        )
    )


def pipeline_seconds(pipeline: Pipeline, words: list[str], batch: str) -> float:
    return asyncio.run(_published_to_stored(pipeline, words, batch))


async def _published_to_stored(pipeline: Pipeline, words: list[str], batch: str) -> float:
    nc = await nats.connect(pipeline.nats_url)
    js = nc.jetstream(timeout=10)
    progress = await nc.subscribe(f"batches.{batch}.progress")
    started = time.perf_counter()
    for at in range(0, len(words), 200):
        chunk = words[at : at + 200]
        await asyncio.gather(*(js.publish(f"terms.submit.{batch}", w.encode()) for w in chunk))
    while True:
        event = json.loads((await progress.next_msg(timeout=120)).data)
        if event["finished"] + event["dead"] >= len(set(words)):
            break
    seconds = time.perf_counter() - started
    await nc.close()
    return seconds


async def script_seconds(pipeline: Pipeline, words: list[str]) -> float:
    """Two calls a term, up to 2 × CONCURRENCY at once, parsed and checked; nothing else."""
    base_url = pipeline.endpoints["provider"]["base_url"]
    access = ProviderAccess(
        kind="simulated", base_url=base_url, model="simulated/teacher-1", api_key=None
    )
    gate = asyncio.Semaphore(2 * CONCURRENCY)
    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:

        async def ask(prompt: Prompt) -> str:
            request = completion_request(prompt, access, max_tokens=2048, temperature=0.3)
            async with gate:
                answer = await client.post("/chat/completions", content=request.body)
            text: str = answer.json()["choices"][0]["message"]["content"]
            return text

        async def walk(position: int, word: str) -> None:
            accepted = TermAccepted(
                batch=Batch("script"),
                term_id=TermId("x"),
                term=word,
                position=position,
                deck="script",
                sequence=position,
                submitted_at=datetime.now(UTC),
            )
            reply = read_reply(await ask(analysis_prompt(accepted)), AnalysisReply)
            analyzed = TermAnalyzed(
                accepted=accepted, analysis=checked_analysis(reply, accepted), stage1=_nothing()
            )
            checked_cards(read_reply(await ask(cards_prompt(analyzed)), CardsReply), analyzed)

        started = time.perf_counter()
        await asyncio.gather(*(walk(i, word) for i, word in enumerate(words, start=1)))
        return time.perf_counter() - started


def _nothing() -> StageProvenance:
    now = datetime.now(UTC)
    return StageProvenance(
        model="",
        provider="",
        fingerprint="",
        prompt_version="",
        cached=False,
        attempts=1,
        calls=1,
        usage=Usage(),
        cost_usd=Decimal(0),
        started_at=now,
        finished_at=now,
    )


if __name__ == "__main__":
    main()
