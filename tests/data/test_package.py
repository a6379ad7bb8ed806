"""What `carousel.data` offers, and what importing it costs."""

import subprocess
import sys

import pytest

import carousel.data


def test_the_public_names_are_these():
    assert carousel.data.__all__ == [
        "FORMATS",
        "SERIES_FORMATS",
        "Batch",
        "BucketedBatches",
        "Coverage",
        "Example",
        "FileReport",
        "LabelSet",
        "Sequences",
        "Series",
        "Tokenizer",
        "Vocabulary",
        "WordVectors",
        "describe_file",
        "labelled_examples",
        "numbered_lines",
        "read_json",
        "read_labelled",
        "read_series",
        "read_vectors",
        "replacing",
        "write_json",
    ]
    assert all(getattr(carousel.data, name) is not None for name in carousel.data.__all__)
    assert set(carousel.data.__all__) <= set(dir(carousel.data))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Batches'"):
        carousel.data.Batches  # noqa: B018


def test_reading_imports_no_tensor_library():
    code = (
        "import sys, carousel.data as data; data.Tokenizer('word').tokenize('a b'); "
        "assert not {'torch', 'numpy'} & set(sys.modules); data.Batch; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
