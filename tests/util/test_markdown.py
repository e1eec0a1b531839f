"""Plain text on a page reads as it is, whatever it holds."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from bas.util.markdown import bullets, markdown_table, paragraph, plain, section

TEXTS = [
    "crowd [v2] a|b ||",
    "<script>alert(1)</script> <!-- x --> <b",
    "&lt;b&gt; &amp; &#60; AT&T",
    "`code` ``` ~~~ ~~gone~~ a~b",
    "*a* **b** _c_ __d__ a_b snake_case_ _x",
    "[a](https://x) ![b](https://x) [c]: https://x [d][e] [^1]",
    "a\\|b \\ \\\\ \\* end\\",
    "# one",
    "- [x] two",
    "[ ] three",
    "+ four",
    "> five",
    "7. six",
    "8) seven",
    "---",
    "===",
    "$x$ and $$y$$",
    "[a]: https://x 'title'",
    "plain words, 3.5 % (+1.2 to -3.4), p < 0.05 & so on",
    "中文 عربي 😀",
]


def shown(lines: list[str]) -> list[str]:
    """The texts of a page, each a paragraph, a heading, an item or a cell; nothing in it is marked."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse("\n".join(lines))
    texts = [token for token in tokens if token.type == "inline"]
    for token in texts:
        assert {child.type for child in token.children or ()} <= {"text", "text_special"}, token.children
    assert not {"fence", "code_block", "html_block", "hr", "blockquote_open"} & {token.type for token in tokens}
    return ["".join(child.content for child in token.children or ()) for token in texts]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_reads_as_it_is_wherever_it_stands(text: str) -> None:
    assert shown([paragraph(text)]) == [text]
    assert shown([section(2, text)]) == [text]
    assert shown(bullets([text, text])) == [text, text]
    assert shown(markdown_table([text, "b"], [[text, text], ["1", text]])) == [text, "b", text, text, "1", text]


def test_a_line_stays_one_and_commands_are_written_out() -> None:
    assert plain("a\nb|\n\x1b[2J") == "a b\\| \\\\x1b[2J"


def test_what_pages_say_is_not_touched() -> None:
    line = "BAS ser_bas3: +1.2 (-0.3 to +2.6), p 0.1: tie; 52.1 ± 0.3, state 6 > state 0, [1, 2], 4 % – 5"
    assert plain(line) == line
    assert markdown_table(["a"], [["-0.3"]]) == ["| a |", "| --- |", "| -0.3 |"]
