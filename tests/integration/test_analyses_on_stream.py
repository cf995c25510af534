"""Stage 1 reads on a real server what it wrote before."""

from __future__ import annotations

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from services.kernel import topology
from services.kernel.errors import Outage
from services.stage1.analyses import AnalysesOnStream


async def test_an_analysis_is_found_by_its_batch_and_term_alone(js: JetStreamContext) -> None:
    await js.publish(topology.analyzed_subject("b1", "x"), b"the analysis")
    analyses = AnalysesOnStream(js)
    assert await analyses.read("b1", "x") == b"the analysis"
    assert await analyses.read("b1", "y") is None
    assert await analyses.read("b2", "x") is None


async def test_an_analysis_that_was_forgotten_is_not_there(js: JetStreamContext) -> None:
    await js.publish(topology.analyzed_subject("b1", "x"), b"the analysis")
    await js.purge_stream(topology.ANALYSES.name)
    assert await AnalysesOnStream(js).read("b1", "x") is None


async def test_a_server_that_is_away_is_an_outage_and_no_missing_analysis(
    nc: Client, js: JetStreamContext
) -> None:
    await nc.close()
    with pytest.raises(Outage, match="stream ANALYSES can't be asked"):
        await AnalysesOnStream(js).read("b1", "x")


async def test_a_stream_that_is_gone_is_an_outage_and_no_missing_analysis(
    js: JetStreamContext,
) -> None:
    await js.delete_stream(topology.ANALYSES.name)
    with pytest.raises(Outage, match="stream ANALYSES can't be asked"):
        await AnalysesOnStream(js).read("b1", "x")
