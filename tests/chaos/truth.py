"""What the simulated model answers when nothing is spoilt; cards are held against it."""

from __future__ import annotations

from services.kernel.contracts.analysis import Analysis, TermAnalyzed
from services.kernel.contracts.card import Card
from services.kernel.contracts.term import TermAccepted
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.llm.reply import read_reply
from services.kernel.model_settings import StageSettings
from services.kernel.provider_access import SIMULATED_MODEL, SIMULATOR_URL, ProviderAccess
from services.simulator.asked import read_call
from services.simulator.completions import SimulatedModel
from services.simulator.fate import Fate
from services.simulator.knowledge import Knowledge
from services.stage1.checks import checked_analysis
from services.stage1.prompt import AnalysisReply, analysis_prompt
from services.stage2.checks import checked_cards
from services.stage2.prompt import CardsReply, cards_prompt

HONEST = Fate(0.0, hangs=False, error=None, malformed=None, variant=0, code="")
_SIMULATOR = ProviderAccess(
    kind="simulated", base_url=SIMULATOR_URL, model=SIMULATED_MODEL, api_key=None
)


class Truth:
    """The simulator's, for one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._model = SimulatedModel(Knowledge.shipped())

    def analysis(self, accepted: TermAccepted) -> Analysis:
        text = self._answer(analysis_prompt(accepted))
        return checked_analysis(read_reply(text, AnalysisReply), accepted)

    def cards(self, analyzed: TermAnalyzed) -> tuple[Card, ...]:
        return checked_cards(read_reply(self._answer(cards_prompt(analyzed)), CardsReply), analyzed)

    def _answer(self, prompt: Prompt) -> str:
        stage = StageSettings()
        inquiry = Inquiry(prompt, _SIMULATOR, stage.max_tokens, stage.temperature)
        asked = read_call(inquiry.request(_SIMULATOR).body)
        return self._model.complete(asked, HONEST, self._seed).content or ""
