"""Word lists as people have them, read through the one door: `read_rows`."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.readers import BadRow, Row, read_rows
from services.ingest.readers.rows import CHARACTERS_MAX, SAMPLE_SIZE
from services.kernel.errors import SettingsError

Fields = dict[str, str | int]


def rows(content: str | bytes, name: str = "-") -> list[Row | BadRow]:
    data = content.encode() if isinstance(content, str) else content
    return list(read_rows(io.BytesIO(data), name=name))


def fields(content: str | bytes, name: str = "-") -> list[Fields]:
    """The fields of all rows; fails if one is bad."""
    read = rows(content, name)
    assert [row for row in read if isinstance(row, BadRow)] == []
    return [dict(row.fields) for row in read if isinstance(row, Row)]


def terms(content: str | bytes, name: str = "-") -> list[str | int]:
    return [row["term"] for row in fields(content, name)]


BOOK: Fields = {"position": 1, "term": "책", "type": "noun"}
WATER: Fields = {"position": 2, "term": "물", "type": "noun"}

FILES: dict[str, tuple[str, str, list[Fields]]] = {
    "csv": ("a.csv", "position,term,type\n1,책,noun\n2,물,noun\n", [BOOK, WATER]),
    "csv on a pipe": ("-", "position,term,type\n1,책,noun\n2,물,noun\n", [BOOK, WATER]),
    "csv with windows line ends": (
        "a.csv",
        "position,term,type\r\n1,책,noun\r\n2,물,noun",
        [BOOK, WATER],
    ),
    "csv with old mac line ends": (
        "a.csv",
        "position,term,type\r1,책,noun\r2,물,noun",
        [BOOK, WATER],
    ),
    "semicolon csv": ("a.csv", "번호;단어;품사\n1;책;noun\n2;물;noun\n", [BOOK, WATER]),
    "semicolon csv with commas in cells": (
        "a.csv",
        "책;book, volume\n물;water, liquid, drink\n",
        [{"term": "책", "hint": "book, volume"}, {"term": "물", "hint": "water, liquid, drink"}],
    ),
    "excel's csv with a separator line": (
        "a.csv",
        "sep=;\nterm;hint\n책;a,b\n",
        [{"term": "책", "hint": "a,b"}],
    ),
    "tsv": ("a.tsv", "No.\t한국어\tPOS\n1\t책\tnoun\n2\t물\tnoun\n", [BOOK, WATER]),
    "tsv of one column": ("a.tsv", "책\n물\n", [{"term": "책"}, {"term": "물"}]),
    "csv of one column": ("a.csv", "단어\n책\n물\n", [{"term": "책"}, {"term": "물"}]),
    "tsv without a header": (
        "-",
        "책\tbook\n물\twater\n",
        [{"term": "책", "hint": "book"}, {"term": "물", "hint": "water"}],
    ),
    "csv without a header": (
        "a.csv",
        "1,책,book\n2,물,water\n",
        [{"term": "책", "hint": "book"}, {"term": "물", "hint": "water"}],
    ),
    "csv without a header on a pipe": (
        "-",
        "1,책,book\n2,물,water\n",
        [{"term": "책", "hint": "book"}, {"term": "물", "hint": "water"}],
    ),
    "several unnamed glosses are left out": (
        "a.csv",
        "1,책,book,noun\n2,물,water,noun\n",
        [{"term": "책"}, {"term": "물"}],
    ),
    "empty columns beside the gloss": (
        "a.csv",
        "책,book,\n물,water,\n",
        [{"term": "책", "hint": "book"}, {"term": "물", "hint": "water"}],
    ),
    "the gloss before the term": (
        "a.csv",
        "book,책\nwater,물\n",
        [{"term": "책", "hint": "book"}, {"term": "물", "hint": "water"}],
    ),
    "column names that we do not know": (
        "a.csv",
        "Front,Back\n책,book\n",
        [{"term": "책", "hint": "book"}],
    ),
    "a header without the term's column": (
        "a.csv",
        "번호,우리말,뜻\n1,책,book\n",
        [{"position": 1, "term": "책", "hint": "book"}],
    ),
    "two columns could be the term's": (
        "a.csv",
        "word,korean\nbook,책\n",
        [{"term": "책", "hint": "book"}],
    ),
    "a named column is trusted": (
        "a.csv",
        "term,hint\nbook,책\n",
        [{"term": "book", "hint": "책"}],
    ),
    "cells left empty": ("a.csv", "term,type,hint\n책,,\n물\n", [{"term": "책"}, {"term": "물"}]),
    "several hints": (
        "a.csv",
        "어휘,한자,뜻\n사과,沙果,apple\n책,,book\n",
        [{"term": "사과", "hint": "沙果; apple"}, {"term": "책", "hint": "book"}],
    ),
    "every field": (
        "a.csv",
        "Priority,Deck,Hint,Type,Position,Hangul\nurgent,기본,book,noun,7,책\n",
        [
            {
                "priority": "urgent",
                "deck": "기본",
                "hint": "book",
                "type": "noun",
                "position": 7,
                "term": "책",
            }
        ],
    ),
    "decorated names and unknown columns": (
        "a.csv",
        "\ufeff*단어* (Korean) ,level,Part of Speech:\n책,A,noun\n",
        [{"term": "책", "type": "noun"}],
    ),
    "positions that are none": (
        "a.csv",
        "position,term\n0,책\n-1,물\nx,불\n1.5,산\n,강\n3.0,달\n",
        [{"term": t} for t in "책물불산강"] + [{"position": 3, "term": "달"}],
    ),
    "quoted cells": (
        "a.csv",
        'term, hint\n"책", "a ""good"", long\nbook"\n물,water\n',
        [{"term": "책", "hint": 'a "good", long\nbook'}, {"term": "물", "hint": "water"}],
    ),
    "blank lines": ("a.csv", "\nterm,hint\n\n책,book\n , \n\n", [{"term": "책", "hint": "book"}]),
    "plain list": ("a.txt", "책\n\n  눈이 높다 \n", [{"term": "책"}, {"term": "눈이 높다"}]),
    "plain list of expressions with commas": (
        "-",
        "네, 맞아요\n책\n",
        [{"term": "네, 맞아요"}, {"term": "책"}],
    ),
    "plain list of one line": ("-", "네, 맞아요", [{"term": "네, 맞아요"}]),
    "plain list with a header": ("words.txt", "Korean\n책\n", [{"term": "책"}]),
    "plain list that begins with the term 단어": (
        "words.txt",
        "단어\n책\n",
        [{"term": "단어"}, {"term": "책"}],
    ),
    "plain list with comments": ("words.txt", "# 1과\n책\n", [{"term": "책"}]),
    "unknown ending": ("words.list", "책\n물\n", [{"term": "책"}, {"term": "물"}]),
    "numbered list": (
        "topik.txt",
        "1. 책 (book)\n2) 물\n",
        [{"term": "1. 책 (book)"}, {"term": "2) 물"}],
    ),
    "numbered list with tabs": (
        "topik.txt",
        "1.\t책\tbook\n2.\t물\twater\n",
        [{"term": "책", "hint": "book"}, {"term": "물", "hint": "water"}],
    ),
    "anki": (
        "a.txt",
        "#separator:tab\n#html:false\n책\tbook\n",
        [{"term": "책", "hint": "book"}],
    ),
    "anki with all its columns": (
        "a.txt",
        """#separator:Semicolon
#html:true
#guid column:1
#notetype column:2
#deck column:3
#tags column:6
h>L{P;한글 기본;기본;<b>book</b>;"책&nbsp;[sound:a.mp3]";쉬움
xx;한글 기본;기본;water<br>liquid;<div>물</div>;
""",
        [
            {"term": "책", "deck": "기본", "hint": "book"},
            {"term": "물", "deck": "기본", "hint": "water liquid"},
        ],
    ),
    "anki with names and a deck": (
        "a.txt",
        "#separator:|\n#columns:뜻|단어\n#deck:기본\n#tags:x\nbook|책\n",
        [{"term": "책", "deck": "기본", "hint": "book"}],
    ),
    "anki separated by a tab as itself": (
        "a.txt",
        "#separator:\t\n책\tbook\n",
        [{"term": "책", "hint": "book"}],
    ),
    "anki without a separator": (
        "a.txt",
        "#html:false\n책\tbook\n",
        [{"term": "책", "hint": "book"}],
    ),
    "jsonl": (
        "a.jsonl",
        '{"position":1,"term":"책","type":"noun"}\n\n{"번호":"2","단어":"물","품사":"noun"}\n',
        [BOOK, WATER],
    ),
    "jsonl on a pipe": ("-", '\ufeff{"term": "책", "level": [1], "hint": null}', [{"term": "책"}]),
    "jsonl of strings": ("a.ndjson", '"책"\n"\\ubb3c"\n', [{"term": "책"}, {"term": "물"}]),
    "jsonl with positions that are none": (
        "a.json",
        '{"term":"책","position":0}\n{"term":"물","position":true}\n{"term":"불","position":2.0}\n',
        [{"term": "책"}, {"term": "물"}, {"term": "불", "position": 2}],
    ),
    "no Korean at all": (
        "a.csv",
        "a,b\nc,d\n",
        [{"term": "a", "hint": "b"}, {"term": "c", "hint": "d"}],
    ),
    "named, but no Korean at all": ("a.csv", "b,term\nc,d\n", [{"term": "d"}]),
    "a number among names is no header": (
        "a.csv",
        "1,단어,x\n2,책,y\n",
        [{"term": "단어", "hint": "x"}, {"term": "책", "hint": "y"}],
    ),
    "nothing": ("a.csv", "", []),
    "nothing on a pipe": ("-", "\n\n", []),
    "a header alone": ("a.csv", "term,hint\n", []),
}


@pytest.mark.parametrize(("name", "content", "expected"), FILES.values(), ids=FILES)
def test_a_word_list_gives_its_fields(name: str, content: str, expected: list[Fields]) -> None:
    assert fields(content, name) == expected


def test_rows_know_their_line_and_their_raw_text() -> None:
    content = '#separator:comma\n\nterm,hint\n책,"a\nb"\n\n물, water \n'
    assert [(row.line, row.text) for row in rows(content, "a.txt")] == [
        (4, '책,"a\nb"'),
        (7, "물, water "),
    ]


BAD_ROWS = {
    "no term": ("a.csv", "hint,term\nbook,책\nx, \ny\nwater,물\n", {3: "no term", 4: "no term"}),
    "invalid JSON": ("a.jsonl", '{"term": "책"}\n{"term": \n"물"\n', {2: "no JSON"}),
    "JSON of no object": ("a.jsonl", '["책"]\n"물"\n12\n"불"', {1: "not list", 3: "not int"}),
    "JSON without a term": (
        "a.jsonl",
        '{"hint": "x"}\n{"term": " "}\n"물"\n"불"',
        {1: "no term", 2: "no term"},
    ),
    "JSON with a number as term": ("a.jsonl", '{"term": 1}\n"물"\n"불"', {1: "'term' holds int"}),
    "JSON with a list as hint": (
        "a.jsonl",
        '{"term":"책","hint":[]}\n"물"\n"불"',
        {1: "'hint' holds list"},
    ),
    "JSON with a key twice": (
        "a.jsonl",
        '{"term":"책","x":1,"x":2}\n"물"\n"불"',
        {1: "'x' stands twice"},
    ),
    "JSON with NaN": ("a.jsonl", '{"term":"책","x":NaN}\n"물"\n"불"', {1: "NaN is no JSON"}),
    "JSON with Infinity": ("a.jsonl", '{"term":"책","x":-Infinity}\n"물"\n"불"', {1: "-Infinity"}),
    "deep JSON": (
        "a.jsonl",
        '{"term":"책","x":' + "[" * 30_000 + "\n" + '"물"\n"불"',
        {1: "nested"},
    ),
    "JSON with a long number": ("a.jsonl", '{"x":' + "9" * 5_000 + '}\n"물"\n"불"', {1: "digit"}),
    "JSON with half a pair": (
        "a.jsonl",
        '{"term":"책","hint":"\\ud800"}\n"물"\n"불"',
        {1: "surrogate"},
    ),
    "a long line": ("a.txt", "책" * (CHARACTERS_MAX + 1) + "\n물\n불\n", {1: "more than 65536"}),
    "a very long line in a table": (
        "a.csv",
        "term,hint\n물,x\n" + "책" * (3 * CHARACTERS_MAX) + "\n불,y\n",
        {3: "more than 65536"},
    ),
    "a long line of JSON": (
        "a.jsonl",
        '"물"\n' + " " * CHARACTERS_MAX * 2 + '\n"불"',
        {2: "65536"},
    ),
    "a long line at the end": ("a.txt", "물\n불\n" + "책" * (CHARACTERS_MAX * 2), {3: "65536"}),
    "a quote never closed": ("a.csv", 'term,hint\n물,x\n"책,y\n불,z\n', {3: "a quote"}),
    "a quote never closed in a long file": (
        "a.csv",
        'term,hint\n"책,y\n물,x\n불,z\n' + "\n" * CHARACTERS_MAX,
        {2: "a quote"},
    ),
    "a quote never closed before much text": (
        "a.csv",
        'term,hint\n"책,y\n물,x\n불,z\n' + (" " * 60_000 + "\n") * 2,
        {2: "a quote"},
    ),
    "a long line within an open quote": (
        "a.csv",
        'term,hint\n물,x\n"책,y\n' + "책" * (CHARACTERS_MAX + 1) + "\n불,z\n",
        {3: "a quote", 4: "more than 65536"},
    ),
}


@pytest.mark.parametrize(("name", "content", "faults"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_says_why_and_stops_nothing(
    name: str, content: str, faults: dict[int, str]
) -> None:
    read = rows(content, name)
    bad = {row.line: row for row in read if isinstance(row, BadRow)}
    assert {line: reason in bad[line].reason for line, reason in faults.items()} == (
        dict.fromkeys(bad, True)
    )
    assert "".join(str(row.fields["term"]) for row in read if isinstance(row, Row))[-2:] in (
        "물불",
        "책물",
    )
    assert [row.line for row in read] == sorted(row.line for row in read)


def test_a_line_at_the_bound_is_read() -> None:
    line = "책" * CHARACTERS_MAX
    assert terms(f"{line}\n물\n") == [line, "물"]


def test_what_is_kept_of_a_long_line_is_short() -> None:
    (bad,) = rows("책" * CHARACTERS_MAX * 2)
    assert len(bad.text) == 200


def test_many_quotes_never_closed_each_cost_their_own_line() -> None:
    lines = [f'"책{n},x' if n % 2_000 == 0 else f"물{n},x" for n in range(1, 40_001)]
    lines[-1] = "끝,x"
    read = rows("term,hint\n" + "\n".join(lines), "a.csv")
    # A quote that a later one closes makes one odd row; no term without a quote may be lost twice.
    assert isinstance(read[-1], Row)
    assert read[-1].fields["term"] == "끝"


ENCODINGS = {
    "utf-8": "utf-8",
    "utf-8 with a mark": "utf-8-sig",
    "cp949": "cp949",
    "utf-16 with a mark": "utf-16",
    "utf-32 with a mark": "utf-32",
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_encodings_are_found(encoding: str) -> None:
    content = "단어,뜻\r\n뷁,x\r\n똠,y\r\n".encode(encoding)
    assert fields(content, "a.csv") == [{"term": "뷁", "hint": "x"}, {"term": "똠", "hint": "y"}]


@pytest.mark.parametrize("order", ["be", "le"])
def test_utf_16_is_read_in_both_byte_orders(order: str) -> None:
    assert terms("\ufeff책\n물".encode(f"utf-16-{order}")) == ["책", "물"]


def test_a_late_byte_decides_for_cp949() -> None:
    content = b"term,hint\n" + (b"x," + b"y" * 10_000 + b"\n") * 30 + "물,z\n".encode("cp949")
    assert terms(content, "a.csv")[-1] == "물"


def test_what_is_valid_utf_8_is_never_read_as_cp949() -> None:
    assert terms("café\n".encode()) == ["café"]


UNDECODABLE = {
    "at once": (b"\xff\xff", "byte 0 (line 1) is not UTF-8 or CP949"),
    "in UTF-8": ("책\n물\n".encode() + b"\xff", "byte 8 (line 3) is not UTF-8 or CP949"),
    "in CP949": ("책\n물\n".encode("cp949") + b"\xff\n", "byte 6 (line 3) is not UTF-8 or CP949"),
    "cut off": ("책\n물물".encode()[:-1], "byte 7 (line 2) is not UTF-8 or CP949"),
    "behind a mark": (b"\xef\xbb\xbf" + b"a\n\xff", "byte 5 (line 2) is not UTF-8, which"),
    "in UTF-16": (b"\xff\xfea\x00\n\x00\x00\xd8", "byte 6 (line 2) is not UTF-16-LE, which"),
    "far away": (
        "책\n".encode() * 200_000 + b"\xff",
        "byte 800000 (line 200001) is not UTF-8 or CP949",
    ),
    "far away in CP949": (
        "책\n".encode("cp949") * 200_000 + b"\xff\n",
        "byte 600000 (line 200001) is not UTF-8 or CP949",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNDECODABLE.values(), ids=UNDECODABLE)
def test_what_no_encoding_fits_is_refused_at_its_byte_and_line(
    content: bytes, message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        rows(content, "words.csv")
    assert f"words.csv: {message}" in str(refused.value)
    assert "save the file as UTF-8" in str(refused.value)


def workbook(table: Iterable[Iterable[object]], *, hidden_first: bool = False) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    if hidden_first:
        sheet.sheet_state = "hidden"
        sheet = book.create_sheet("목록")
    for row in table:
        sheet.append(list(row))
    saved = io.BytesIO()
    book.save(saved)
    return saved.getvalue()


XLSX: dict[str, tuple[list[list[object]], list[Fields]]] = {
    "a header": (
        [["번호", "단어", "뜻"], [1, "책", "book"], [2.0, "물", None]],
        [{"position": 1, "term": "책", "hint": "book"}, {"position": 2, "term": "물"}],
    ),
    "no header": ([[1, "책"], [2, "물"]], [{"term": "책"}, {"term": "물"}]),
    "blank rows and other values": (
        [["term", "hint"], [], ["책", 1.5], ["물", True], [None, " "]],
        [{"term": "책", "hint": "1.5"}, {"term": "물", "hint": "True"}],
    ),
    "nothing": ([], []),
}


@pytest.mark.parametrize(("table", "expected"), XLSX.values(), ids=XLSX)
def test_a_workbook_gives_its_fields(table: list[list[object]], expected: list[Fields]) -> None:
    assert fields(workbook(table), "a.xlsx") == expected


def test_a_workbook_is_known_by_its_content_and_its_lines_are_excels() -> None:
    read = rows(workbook([["term"], [], ["책"], ["물"]]))
    assert [(row.line, row.text) for row in read] == [(3, "책"), (4, "물")]


def test_hidden_sheets_are_passed_over() -> None:
    assert terms(workbook([["책"]], hidden_first=True)) == ["책"]


def test_a_row_of_many_long_cells_is_bad() -> None:
    read = rows(workbook([["물", "x"], ["책", *["x" * 30_000] * 3], ["불", "y"]]))
    assert [type(row) for row in read] == [Row, BadRow, Row]
    assert read[1].line == 2


def _zip(**parts: str) -> bytes:
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return saved.getvalue()


UNREADABLE = {
    "a cut workbook": ("a.xlsx", workbook([["책"]])[:400], "not a readable XLSX workbook"),
    "text named as a workbook": ("a.xlsx", "책\n".encode(), "not a readable XLSX workbook"),
    "an archive of something else": ("a.apkg", _zip(collection="x"), "save it as .xlsx or as CSV"),
    "a workbook of the old format": ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "save the workbook as"),
    "a JSON array": ("a.json", b'\n[{"term": "x"}]', "write one object a line"),
    "an unknown separator": ("a.txt", b"#separator:dots\nx", "'dots' is not known"),
    "a quote as separator": ("a.txt", b'#separator:"\nx', "is not known"),
    "an empty separator": ("a.txt", b"#separator:\nx", "'' is not known"),
}


@pytest.mark.parametrize(("name", "content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_says_what_to_do(name: str, content: bytes, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        rows(content, name)
    assert str(refused.value).startswith(f"{name}: ")
    assert message in str(refused.value)


def test_a_workbook_that_breaks_on_the_way_is_unreadable() -> None:
    parts = {}
    with zipfile.ZipFile(io.BytesIO(workbook([["책"], ["물"]]))) as archive:
        for part in archive.namelist():
            parts[part] = archive.read(part).decode()
    parts["xl/worksheets/sheet1.xml"] = parts["xl/worksheets/sheet1.xml"][:-40]
    with pytest.raises(SettingsError, match="ParseError"):
        rows(_zip(**parts), "a.xlsx")


def test_a_workbook_that_unpacks_to_too_much_is_refused() -> None:
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/sharedStrings.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(257):
            part.write(bytes(1024 * 1024))
    with pytest.raises(SettingsError, match="save the sheet as CSV"):
        rows(bomb.getvalue(), "a.xlsx")


def test_paths_are_read_by_their_ending(tmp_path: Path) -> None:
    path = tmp_path / "words.CSV"
    path.write_text("단어\n책\n", encoding="cp949")
    assert [row.line for row in read_rows(path)] == [2]


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.csv: No such file"):
        list(read_rows(tmp_path / "missing.csv"))
    with pytest.raises(SettingsError, match="directory; give the path of a word list"):
        list(read_rows(tmp_path))


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def test_a_pipe_is_read_like_a_file_and_left_open() -> None:
    pipe = _Pipe("단어,뜻\n책,book\n".encode("cp949"))
    assert [row.line for row in read_rows(cast("BinaryIO", pipe))] == [2]
    assert not pipe.closed


def test_a_stream_is_read_from_where_it_stands_and_left_open() -> None:
    stream = io.BytesIO("물\n책\n".encode())
    stream.seek(4)
    assert [row.text for row in read_rows(stream)] == ["책"]
    assert not stream.closed


def test_bad_rows_beyond_the_sample_are_still_bad_rows() -> None:
    lines = [json.dumps({"term": "책"})] * (2 * SAMPLE_SIZE)
    lines[150] = "{"
    assert [row.line for row in rows("\n".join(lines)) if isinstance(row, BadRow)] == [151]


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl"])
def test_a_long_file_is_read_in_bounded_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    line = '"책상"\n' if name == "a.jsonl" else "책상,noun,desk\n"
    path.write_text(line * 20_000, encoding="utf-8")
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 2 * 1024 * 1024


@given(st.text(), st.sampled_from(["a.csv", "a.tsv", "a.txt", "a.jsonl", "-"]))
def test_any_text_is_read_or_refused(content: str, name: str) -> None:
    data = io.BytesIO(content.encode("utf-8", "replace"))
    try:
        read = list(read_rows(data, name=name))
    except SettingsError:
        return
    assert [row.line for row in read] == sorted({row.line for row in read})


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.jsonl", "a.xlsx", "-"]))
def test_any_bytes_are_read_or_refused(content: bytes, name: str) -> None:
    try:
        read = list(read_rows(io.BytesIO(content), name=name))
    except SettingsError:
        return
    assert all(isinstance(row, Row | BadRow) for row in read)
