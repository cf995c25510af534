"""What a provider tells of its models and of completions it has billed."""

from __future__ import annotations

from typing import Any, Final

from services.simulator.pricing import COMPLETION_NANO_USD, NANO, PROMPT_NANO_USD, to_usd
from services.simulator.replies import PROVIDER, Generation
from services.simulator.settings import MODEL_ID

_CONTEXT_TOKENS: Final = 128_000


def models_list() -> dict[str, Any]:
    """The one model; prices are dollars a token, as strings."""
    return {
        "data": [
            {
                "id": MODEL_ID,
                "name": "Simulated teacher",
                "description": "Answers offline; knows the shipped words and invents the rest.",
                "context_length": _CONTEXT_TOKENS,
                "pricing": {
                    "prompt": _decimal(PROMPT_NANO_USD),
                    "completion": _decimal(COMPLETION_NANO_USD),
                    "request": "0",
                },
                "supported_parameters": [
                    "max_tokens",
                    "reasoning",
                    "response_format",
                    "seed",
                    "structured_outputs",
                    "temperature",
                ],
            }
        ]
    }


def generation_details(generation: Generation) -> dict[str, Any]:
    return {
        "data": {
            "id": generation.id,
            "model": generation.model,
            "provider_name": PROVIDER,
            "created_at": generation.created_s,
            "finish_reason": generation.finish_reason,
            "tokens_prompt": generation.prompt_tokens,
            "tokens_completion": generation.completion_tokens,
            "native_tokens_prompt": generation.prompt_tokens,
            "native_tokens_completion": generation.completion_tokens,
            "native_tokens_reasoning": 0,
            "native_tokens_cached": 0,
            "total_cost": to_usd(generation.nano_usd),
            "usage": to_usd(generation.nano_usd),
            "streamed": False,
            "cancelled": False,
        }
    }


def _decimal(nano_usd: int) -> str:
    return f"{nano_usd / NANO:.9f}".rstrip("0")
