"""Getting together what an estimate stands on: settings, prices, and a pipeline if there is one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import SecretStr

from services.cli.estimating.answers import Asking, accepted_of, known_answers
from services.cli.estimating.estimate import Estimate, Rows, Sources, estimate_of
from services.cli.estimating.figures import STAGES, TYPICAL, measured_figures
from services.cli.submitting.payloads import Payload, understood
from services.cli.submitting.submission import Submission
from services.kernel import topology
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import TermRefused, TransientError
from services.kernel.llm.cache import BucketCache
from services.kernel.llm.http_provider import open_http_provider
from services.kernel.llm.prices import Prices, listed_prices
from services.kernel.model_settings import ModelSettings
from services.kernel.provider_access import resolve_fallbacks, resolve_provider
from services.kernel.settings import load_settings
from services.simulator.catalogue import models_list
from services.stage1.settings import Stage1Settings
from services.stage2.settings import Stage2Settings


async def estimate_submission(
    read: Submission, js: JetStreamContext | None, endpoints: Mapping[str, Any] | None
) -> Estimate:
    """What these rows will cost. `js` and `endpoints` are those of the pipeline, if there is one.

    Raises SettingsError for half a choice of a provider.
    """
    terms, rows = terms_of(read)
    asking = asking_of(endpoints)
    prices, price_from = await _prices(asking)
    known, figures = None, dict(TYPICAL)
    if js is not None:
        try:
            cache = BucketCache(await js.key_value(topology.COMPLETIONS.name))
            known = await known_answers(cache, asking, terms)
        except NotFoundError:
            pass  # Not provisioned yet: nothing is known.
        figures |= await measured_figures(js, asking.access.model)
    sources = Sources(
        asking,
        known,
        figures,
        prices[asking.access.model],
        price_from,
        None if endpoints is None else _replicas(endpoints),
    )
    return estimate_of(rows, sources)


def terms_of(read: Submission) -> tuple[list[TermAccepted], Rows]:
    """The different terms that ingest will take, and what else there is."""
    terms: dict[str, TermAccepted] = {}
    accepted = 0
    for payload in read.payloads:
        submission = _understood(payload)
        if submission is not None:
            accepted += 1
            terms.setdefault(submission.term_id, submission)
    refused = len(read.unsendable) + len(read.refusals)
    rows = Rows(accepted + refused, len(terms), refused, accepted - len(terms))
    return list(terms.values()), rows


def _understood(payload: Payload) -> TermAccepted | None:
    try:
        return accepted_of(understood(payload))
    except TermRefused:
        return None


def asking_of(endpoints: Mapping[str, Any] | None) -> Asking:
    """As the stages of the pipeline ask; as they would with the settings of here without one."""
    settings = load_settings(ModelSettings)
    running = (endpoints or {}).get("provider") or {}
    named = {name: running[name] for name in ("kind", "base_url", "model") if running.get(name)}
    key = settings.openrouter_api_key or SecretStr("not needed to look at prices")
    chosen = settings.model_copy(
        update={
            "provider": settings.provider.model_copy(update=named),
            "openrouter_api_key": key,
        }
    )
    access = resolve_provider(chosen)
    return Asking(
        access.model_copy(update={"api_key": settings.openrouter_api_key}),
        load_settings(Stage1Settings).stage1,
        load_settings(Stage2Settings).stage2,
        tuple(fallback for fallback, _limit in resolve_fallbacks(chosen, access)),
    )


async def _prices(asking: Asking) -> tuple[Prices, str]:
    """From the table of the settings, else as the provider lists them."""
    access = asking.access
    prices = Prices(load_settings(ModelSettings).prices)
    source = prices.source(access.model)
    if source != "unknown":
        return prices, source
    try:
        async with open_http_provider(access, timeout_s=10, concurrency=1) as provider:
            prices.take_listed(listed_prices(await provider.list_models()))
        return prices, prices.source(access.model)
    except TransientError:
        if access.kind != "simulated":
            return prices, "unknown"
    prices.take_listed(listed_prices(json.dumps(models_list()).encode()))
    return prices, "simulator"


def _replicas(endpoints: Mapping[str, Any]) -> dict[str, int]:
    names: Iterable[str] = (str(service["name"]) for service in endpoints.get("services", ()))
    counted = Counter(names)
    return {stage: counted[stage] for stage in STAGES if counted[stage]}
