"""The sentences that cards are made of. Braces are filled from the analysis by `cards`."""

from __future__ import annotations

from typing import Final


def _templates(text: str) -> tuple[str, ...]:
    """The items of a list with asterisks, each on one line."""
    return tuple(" ".join(item.split()) for item in text.split("* ")[1:])


SCENE_FRONTS: Final = _templates("""
* Walk to {place} and stop beside {thing}. Which story about {term} was left there, and what
  does the term mean?
* You hear {term} as you pass {place}. Which picture does the sound call up for you, and what
  does it stand for?
* Somebody says {term} {ipa} out loud. Which scene comes back to you, who acts in it, and what
  does the term mean?
* Close your eyes and say {term} slowly. Who appears in your memory palace, what happens next,
  and how would you translate it?
* In your memory palace {actor} is waiting near {thing}. What is about to happen, and which
  English fits {term}?
* Touch {thing} at {place} and pronounce {term}. Which memory wakes up, and how would you put
  the term into English?
* Let {term} {ipa} ring through your palace once more. Can you replay its story from start to
  finish and translate it?
""")

COMPARISON_FRONTS: Final = _templates("""
* A friend mixes up {term} and {vs}. How would you explain the difference, and in which
  situation does each one belong?
* You are about to speak and hesitate between {term} and {vs}. What decides the choice, and
  which mistake would be heard?
* Two labels on {thing} read {term} and {vs}. Which one is right at which moment, and what
  separates them?
* Your teacher crosses out {vs} and writes {term} instead. What did the correction repair, and
  when would {vs} have been fine?
* Put {term} and {vs} side by side. Where do they overlap, where do they part, and what signals
  the difference?
* Both {term} and {vs} come to mind at once. Can you name one context for each, and explain how
  they differ?
""")

HANJA_FRONTS: Final = _templates("""
* Cover the Hangul of {term} and look at {hanja} alone. How is it read, and what does it express
  in Korean?
* Somebody carved {hanja} into {thing}. How does {term} sound when you read it aloud, and what
  is its sense?
* {term} goes back to {hanja}. How is that read, which idea does it carry, and where else might
  it appear?
* An old sign at {place} shows {hanja}. How does it lead you to {term}, and which idea does it
  hold?
* Trace {hanja} with one finger, then write {term} below. What links the two, and how would you
  translate them?
""")

PLAIN_FRONTS: Final = _templates("""
* Imagine using {term} in a conversation today. In which situation does it fit, which companions
  does it keep, and what does it express?
* Think of two real moments for {term} {ipa}. How would you build each sentence, and where would
  it sound wrong?
* Pause at {place} and say {term} aloud. How would you use it in one sentence of your own, and
  why there?
* Can you build a sentence around {term} {ipa}, explain it to a beginner, and translate it
  without any pause?
""")

MEANINGS: Final = _templates("""
* {term} {ipa} means “{meaning}”.
* The term {term}, pronounced {ipa}, means “{meaning}”.
* “{meaning}” is the core of {term} {ipa}.
""")

SIGHTS: Final = _templates("""
* You see {thing} at {place} and hear a voice say {term}.
* Look around {place}: you see {thing}, and you hear {term} spoken close by.
* At {place} you see {thing}; listen, and you hear someone repeat {term}.
""")

HANJA_SIGHTS: Final = _templates("""
* You see {hanja} painted on {thing} at {place}, and you hear {term} as you trace it.
* At {place} you see {hanja} scratched into {thing}; listen, and you hear {term} read aloud.
""")

TOUCHES: Final = _templates("""
* Let another sense join in: {sense}.
* One detail makes it stay: {sense}.
* Add what your body remembers: {sense}.
""")

FURTHER_MEANINGS: Final = _templates("""
* Further senses: {other}.
* Note its other senses as well: {other}.
""")

USAGE: Final = "How it is used: {usage}"

CONTRASTS: Final = _templates("""
* Compare {term} {ipa}, “{meaning}”, with {vs}.
* {term} {ipa} means “{meaning}”, and it is easily confused with {vs}.
* Keep {term} {ipa}, “{meaning}”, apart from {vs}.
""")

HANJA_MEANINGS: Final = _templates("""
* {term} {ipa} is written {hanja} and means “{meaning}”.
* Behind {term} {ipa} stands {hanja}; the term means “{meaning}”.
""")

NO_HANJA: Final = "No Chinese characters are on record for {term}, which means “{meaning}”."

PADDING: Final = _templates("""
* Say the term aloud three times and let the picture move each time.
* Come back tomorrow, walk the same path, and check whether the scene still stands.
* Write one sentence of your own with it before you turn to the next card.
* Add a person you know to the picture, because familiar faces stay longer.
* Trace the Hangul with a finger while you pronounce every syllable slowly.
* Ask yourself where you could meet it this week: on a sign, in a song, in a message.
* When it slips your mind, return to the place first and the rest will follow.
* Repeat it once with closed eyes, then open them and move on.
""")
"""Advice that any card can end with."""
