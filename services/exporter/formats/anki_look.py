"""How a card of "cardflow v1" looks in Anki: two templates and their style.

These may change: Anki takes them over from a newer file without touching notes or schedules.
"""

from __future__ import annotations

from typing import Final

QUESTION: Final = """\
{{#Front}}
<main lang="ko">
  <p class="kind">{{CardType}}</p>
  <p class="front">{{Front}}</p>
</main>
{{/Front}}
"""

ANSWER: Final = """\
{{FrontSide}}
<hr id="answer">
<section lang="ko">
  <p class="term">{{Term}}</p>
  {{#HonorificLevel}}<p class="level">{{HonorificLevel}}</p>{{/HonorificLevel}}
  {{Audio}}
  <p class="back">{{Back}}</p>
  {{#Image}}<p class="image">{{Image}}</p>{{/Image}}
  {{#Example}}<p class="example">{{Example}}</p>{{/Example}}
  {{#Extra}}<p class="extra">{{Extra}}</p>{{/Extra}}
  {{#Primer}}
  <details>
    <summary>Walk to the memory palace, no. {{TermNumber}}</summary>
    <p>{{Primer}}</p>
  </details>
  {{/Primer}}
</section>
"""

STYLE: Final = """\
.card {
  --ink: #1d2433; --paper: #fbfaf7; --quiet: #6b7280; --line: #e3e0d8; --accent: #b4443c;
  margin: 0 auto; padding: 1.2rem 1rem 2rem; max-width: 38rem;
  color: var(--ink); background: var(--paper);
  font-family: "Pretendard", "Noto Sans KR", "Noto Sans CJK KR", "Apple SD Gothic Neo",
    "Malgun Gothic", "Nanum Gothic", system-ui, sans-serif;
  font-size: 1.15rem; line-height: 1.6; text-align: left;
  word-break: keep-all; overflow-wrap: anywhere;
}
.card.nightMode, .nightMode .card, .night_mode .card {
  --ink: #e8e6e1; --paper: #1c1f26; --quiet: #9aa3b2; --line: #343945; --accent: #f0958c;
}
p { margin: 0 0 .8rem; }
.kind, .level {
  color: var(--quiet); font-size: .75rem; letter-spacing: .08em; text-transform: uppercase;
}
.front { font-size: 1.25rem; }
.term { color: var(--accent); font-size: 1.8rem; font-weight: 700; }
.example, .extra { padding-left: .8rem; border-left: 3px solid var(--line); }
.image img { max-width: 100%; height: auto; border-radius: .5rem; }
hr { margin: 1.2rem 0; border: 0; border-top: 1px solid var(--line); }
details { margin-top: 1.2rem; color: var(--quiet); font-size: 1rem; }
summary { padding: .5rem 0; cursor: pointer; }
"""
