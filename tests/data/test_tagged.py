"""Tagged files: what stands in them is read, written back as it stood, and refused with file and line where it is wrong."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.data.tagged import (
    TaggedSentence,
    guess_tagged_format,
    read_tagged,
    tagged_lines,
    to_characters,
    to_words,
    write_tagged,
)
from carousel.errors import ConfigError, DataError, OutputError, ShapeError

CONLL2003 = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC

-DOCSTART- -X- O O

# # B-NP O
Peter NNP I-NP I-PER

"""
CONLLU = """# newdoc id = a
# text = Don't go
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVBP\tMood=Imp\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\tSpaceAfter=No
# a comment among the words
2.1\tyou\t_\tPRON\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tnow\t_\tADV\t_\t_\t_\t_\t_\t_

# sent_id = 2
1\tNew York\tNew York\tPROPN\tNNP\t_\t0\troot\t_\t_

"""
PAIRS = "１２月/t  ３１日/t  ，/w\n\n1/2/CD ///SYM\n"
RAW = "a  moving  film\n\n房间很大\n"
CHARACTERS = "吴\tB-NAME\n重\tE-NAME\n \tO\n，\tO\n\n男\tO\n\n"
FILES = {"a.txt": CONLL2003, "a.conllu": CONLLU, "pairs.txt": PAIRS, "chars.bmes": CHARACTERS}


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_columns(write):
    first, second = read_tagged(write(CONLL2003))
    assert (first.words, first.tags) == (("EU", "rejects", "German"), ("I-ORG", "O", "I-MISC"))
    assert first.columns[1] == ("rejects", "VBZ", "I-VP", "O")
    assert (first.column, first.format, first.line, first.place[-8:]) == (3, "columns", 3, "/a.txt:3")
    assert second.words == ("#", "Peter")
    assert second.line_of(1) == 10
    assert [s.tags for s in read_tagged(write(CONLL2003), column=1)][1] == ("#", "NNP")
    assert next(read_tagged(write(CONLL2003), column="-2", word_column=1)).tags == ("I-NP", "I-VP", "I-NP")


def test_conllu(write):
    path = write(CONLLU, "a.conllu")
    first, second = read_tagged(path)
    assert (first.words, first.tags) == (("Do", "n't", "go"), ("AUX", "PART", "VERB"))
    assert second.words == ("New York",)
    assert [first.line_of(at) for at in range(3)] == [4, 5, 8]
    wanted = {"xpos": "VBP RB VB", "FEATS": "Mood=Imp _ _", "lemma": "do not go", "deprel": "aux advmod root", 4: "VBP RB VB"}
    for column, tags in wanted.items():
        assert next(read_tagged(path, column=column)).tags == tuple(tags.split())


def test_text_with_tags(write):
    first, second = read_tagged(write(PAIRS))
    assert (first.words, first.tags) == (("１２月", "３１日", "，"), ("t", "t", "w"))
    assert (second.words, second.tags, second.line) == (("1/2", "//"), ("CD", "SYM"), 3)


def test_the_last_slash_counts(write):
    (one,) = read_tagged(write("1/2/CD\tand//SYM  x/y/z/NN\n"))
    assert (one.words, one.tags) == (("1/2", "and/", "x/y/z"), ("CD", "SYM", "NN"))


def test_plain_lines(write):
    first, second = read_tagged(write(RAW), require_tags=False)
    assert (first.words, first.tags, first.separator) == (("a", "moving", "film"), None, "  ")
    assert second.words == ("房间很大",)


def test_characters_with_blanks_among_them(write):
    first, _ = read_tagged(write(CHARACTERS))
    assert first.words == ("吴", "重", " ", "，")
    assert first.tags == ("B-NAME", "E-NAME", "O", "O")


@pytest.mark.parametrize("name", ["a.txt", "a.conllu", "chars.bmes"])
@pytest.mark.parametrize("tidy", [bytes, gzip.compress, lambda raw: b"\xef\xbb\xbf" + raw.replace(b"\n", b"\r\n")])
def test_what_was_read_is_written_back(write, tmp_path, name, tidy):
    path = write(tidy(FILES[name].encode()), name)
    write_tagged(tmp_path / "back", read_tagged(path))
    assert (tmp_path / "back").read_bytes() == FILES[name].encode()


def test_lines_are_written_back(write, tmp_path):
    for content, options in ((PAIRS, {}), (RAW, {"require_tags": False})):
        write_tagged(tmp_path / "back", read_tagged(write(content), **options))
        assert (tmp_path / "back").read_text() == content


def test_other_tags_take_the_place_of_the_old(write, tmp_path):
    out = tmp_path / "out"
    new = [["B-ORG", "O", "O"], ["O", "B-PER"]]
    write_tagged(out, read_tagged(write(CONLL2003)), tags=new, probabilities=[[1.0, 0.25, 0.5], [0.125, 0.99999]])
    wanted = CONLL2003.replace("I-NP I-ORG", "I-NP B-ORG 1.0000").replace("I-VP O", "I-VP O 0.2500")
    wanted = wanted.replace("I-NP I-MISC", "I-NP O 0.5000").replace("B-NP O", "B-NP O 0.1250")
    assert out.read_text() == wanted.replace("I-NP I-PER", "I-NP B-PER 1.0000")
    sentences = list(read_tagged(write(CONLLU, "a.conllu"), column="xpos"))
    write_tagged(out, sentences, tags=[["A", "B", "C"], ["D"]], probabilities=[[0.5] * 3, [1.0]])
    back = list(read_tagged(out, column="xpos"))
    assert [s.tags for s in back] == [("A", "B", "C"), ("D",)]
    assert [row[-1] for row in back[0].columns] == ["Prob=0.5000", "SpaceAfter=No|Prob=0.5000", "Prob=0.5000"]
    assert "2.1\tyou" in out.read_text()


def test_files_without_tags_get_them(write):
    path = write("the\na\nfilm\n\nruns\n", "words.conll")
    with pytest.raises(DataError, match=r"words\.conll:1: the column of the tags is missing"):
        list(read_tagged(path))
    first, _ = read_tagged(path, require_tags=False)
    assert (first.words, first.tags) == (("the", "a", "film"), None)
    assert list(tagged_lines(first, ["D", "D", "N"], [0.5, 0.5, 1])) == ["the D 0.5000", "a D 0.5000", "film N 1.0000", ""]
    (plain,) = read_tagged(write("a  film\n"), require_tags=False)
    assert list(tagged_lines(plain, ["D", "N"], format="word/tag")) == ["a/D  film/N"]
    assert list(tagged_lines(plain, ["D", "N"], format="columns")) == ["a\tD", "film\tN", ""]
    assert list(tagged_lines(plain, ["D", "N"], format="conllu"))[1] == "2\tfilm\t_\tN\t_\t_\t_\t_\t_\t_"
    # A file whose tags would stand in column 2 has none: the part of speech is not one.
    (pos,) = read_tagged(write("the DT\nfilm NN\n"), require_tags=False, column=2, format="columns")
    assert pos.tags is None
    assert next(tagged_lines(pos, ["B-NP", "I-NP"])) == "the DT B-NP"


@pytest.mark.parametrize(
    ("name", "lines", "require_tags", "format"),
    [
        ("a.conllu.gz", ["whatever"], True, "conllu"),
        ("train.char.bmes", ["a b c"], False, "columns"),
        ("-", CONLLU.splitlines(), True, "conllu"),
        ("-", ["the/DT film/NN", "is/VBZ"], False, "word/tag"),
        ("a.txt", ["# id = 1", "the DT", "film NN"], True, "columns"),
        ("a.txt", ["hello world"], False, "raw"),
        ("a.txt", ["hello world", "how are you"], False, "raw"),
        ("a.txt", ["hello\tworld"], False, "columns"),
        ("a.txt", ["a b"] * 5, False, "columns"),
        ("a.txt", ["房间很大"] * 9, False, "raw"),
        ("a.txt", [], False, "raw"),
    ],
)
def test_formats_are_guessed(name, lines, require_tags, format):  # noqa: A002
    assert guess_tagged_format(name, lines, require_tags=require_tags) == format


MISTAKES = {
    "a row without its tag": ("a b O\nb O\n", {}, 2, "have 3 columns"),
    "a row too long": ("a O\n\nb O O\n", {}, 3, "have 2 columns"),
    "an empty word": ("a\tO\n\tO\n", {}, 2, "the word is empty"),
    "an empty tag": ("a\tO\nb\t\n", {}, 2, "the tag is empty"),
    "no such column": ("# x\na O\n", {"column": 2}, 2, "column 2 is missing"),
    "no such column from the end": ("a O\n", {"column": -3}, 1, "column -3 is missing"),
    "a name in a column file": ("a O\n", {"column": "upos"}, 1, "one of CoNLL-U"),
    "plain lines": ("a film\nis a film\n", {}, 2, "say what the file is"),
    "no tags": ("a\nfilm\n", {"format": "columns"}, 1, "tags is missing"),
    "an item without a tag": ("a/b\n\nc/d e\n", {"format": "word/tag"}, 3, "no word with a tag"),
    "an item that is a tag alone": ("a/b /x\n", {"format": "word/tag"}, 1, "no word with a tag"),
    "blank": ("\n \n\t\n", {}, None, "holds no sentences"),
    "empty": ("", {}, None, "holds no sentences"),
    "documents alone": ("-DOCSTART- O\n\n", {}, None, "holds no sentences"),
    "not UTF-8": (b"a O\n\xff O\n", {}, 2, "not UTF-8"),
    "NUL": ("a O\nb\0 O\n", {}, 2, "not plain text"),
    "a word of a file's length": ("a O\n" + "x" * 200_000 + " O\n", {}, 2, "too long"),
    "CoNLL-U with blanks": (CONLLU.replace("\tVERB", " VERB"), {"format": "conllu"}, 8, "not one of CoNLL-U"),
    "CoNLL-U without a blank line": (CONLLU.replace("_\n\n#", "_\n#"), {"format": "conllu"}, 11, "not numbered"),
    "no UPOS": (CONLLU.replace("VERB", "_"), {"format": "conllu"}, 8, "no UPOS"),
    "I after O": ("a O\nb I-X\n", {"scheme": "bio"}, 2, "I-X behind O"),
    "I of another type": ("# a comment\na B-Y\nb I-X\n", {"scheme": "bio"}, 3, "I-X behind B-Y"),
    "B of IOB1 at the beginning": ("a B-X\n", {"scheme": "iob1"}, 1, "behind the beginning"),
    "a span not closed": ("a B-X\nb O\n", {"scheme": "bioes"}, 1, "do not keep to scheme bioes"),
    "no tag of the scheme": ("a O\n\nb NN\n", {"scheme": "bio"}, 3, "not a tag of scheme bio"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_with_file_and_line(write, name):
    content, options, line, words = MISTAKES[name]
    path = write(content)
    with pytest.raises(DataError) as caught:
        list(read_tagged(path, **options))
    assert words in str(caught.value)
    assert caught.value.line == line
    assert str(caught.value).startswith(str(path) if line is None else f"{path}:{line}: ")


def test_inconsistent_tags_are_repaired(write):
    path = write("a O\nb I-X\nc I-Y\nd I-Y\n")
    (one,) = read_tagged(path, scheme="bio", repair=True)
    assert one.tags == ("O", "B-X", "B-Y", "I-Y")


@pytest.mark.parametrize(
    "options",
    [
        {"format": "conlu"},
        {"scheme": "bilou"},
        {"column": "uppos"},
        {"format": "raw"},
        {"format": "word/tag", "column": 1},
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options):
    with pytest.raises(ConfigError):
        read_tagged("nowhere", **options)


def test_bombs_and_long_lines(write, monkeypatch):
    path = write(gzip.compress(b"a O\n" * 100_000))
    monkeypatch.setattr("carousel.data.files.UNSUSPECTED_CHARACTERS", 1 << 12)
    with pytest.raises(DataError, match="holds too much text"):
        list(read_tagged(path))
    (long,) = read_tagged(write("ab " * 200_000 + "\n", "b.txt"), require_tags=False)
    assert len(long) == 200_000


def test_a_sentence_of_five_thousand_tokens(write):
    (one,) = read_tagged(write("a O\n" * 5000))
    assert len(one) == 5000


WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Z")), min_size=1, max_size=4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5), min_size=1, max_size=4))
def test_any_words_survive_each_format(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tagged")
    sentences = [TaggedSentence(tuple(w for w, _ in row), tuple(t for _, t in row)) for row in rows]
    for format in ("columns", "conllu", "word/tag"):  # noqa: A001
        column = {"conllu": "xpos", "columns": 1, "word/tag": None}[format]
        if format == "word/tag" and any("/" in tag for s in sentences for tag in s.tags):
            with pytest.raises(DataError, match="cannot be written"):
                write_tagged(folder / "x", sentences, format=format)
            continue
        write_tagged(folder / "x", sentences, format=format)
        if format == "columns" and any(s.words[0][0] in "#-" for s in sentences):
            continue  # what may be a comment or a document
        column = "upos" if format == "conllu" else column
        if format == "conllu" and any("_" in s.tags for s in sentences):
            continue
        back = list(read_tagged(folder / "x", format=format, column=column))
        assert [(s.words, s.tags) for s in back] == [(s.words, s.tags) for s in sentences]


def test_words_become_characters_and_words_again():
    one = TaggedSentence(("中共中央", "总书记", "、", "江"), ("nt", "n", "w", "nr"), path="a", line=7)
    plain, joint = to_characters(one), to_characters(one, with_tags=True)
    assert "".join(plain.tags) == "BMMEBMESS"
    assert joint.tags[:5] == ("B-nt", "M-nt", "M-nt", "E-nt", "B-n")
    assert (plain.place, plain.words) == ("a:7", tuple("中共中央总书记、江"))
    assert (to_words(plain).words, to_words(plain).tags, to_words(plain).format) == (one.words, None, "raw")
    assert (to_words(joint).words, to_words(joint).tags, to_words(joint).format) == (one.words, one.tags, "word/tag")
    assert to_words(plain, list("MMMMBSEES")).words == ("中共中央", *"总书记、江")  # impossible tags, too
    assert to_words(TaggedSentence(("a", "b", "c")), ["O", "S-X", "O"]).tags == ("O", "X", "O")
    with pytest.raises(ShapeError, match="no tags"):
        to_characters(TaggedSentence(("a",)), with_tags=True)
    with pytest.raises(ShapeError, match="1 tags"):
        to_words(plain, ["S"])


def test_what_cannot_be_written_is_refused(tmp_path):
    one = TaggedSentence(("a b", "c"), ("X", "Y"))
    with pytest.raises(DataError, match="'a b'"):
        list(tagged_lines(one, format="word/tag"))
    with pytest.raises(DataError, match="cannot be written"):
        list(tagged_lines(TaggedSentence(("a",)), ["x\ny"], format="columns"))
    with pytest.raises(ConfigError, match="no place for probabilities"):
        list(tagged_lines(one, None, [1, 1], format="word/tag"))
    with pytest.raises(ShapeError, match="2 words"):
        list(tagged_lines(one, ["X"]))
    for tags in ([["X", "Y"]], [["X", "Y"]] * 3):
        with pytest.raises(ShapeError, match=r"(fewer|more) tags"):
            write_tagged(tmp_path / "out", [one, one], tags=tags, format="columns")
    with pytest.raises(ConfigError, match="columns"):
        write_tagged(tmp_path / "out", [one], format="colums")
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError):
        write_tagged(tmp_path / "no" / "out", [one], format="columns")
