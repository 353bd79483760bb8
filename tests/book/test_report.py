"""The report's numbers come from one file, each with its meaning."""

import pytest

from hw3lib.book import report


def test_a_number_has_a_value_and_a_meaning():
    assert report.value("q1.8.test_bpd") == 0.56
    assert report.meaning("q1.8.test_bpd").startswith("report:")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"q1\.8\.test_bpd"):
        report.value("q1.8.tset_bpd")
