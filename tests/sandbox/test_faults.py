import pytest

from jobs.sandbox import VOCABULARY, UnknownFault
from jobs.sandbox.faults import Faults, parse


def test_a_bare_name_meets_everyone_for_ever():
    fault = parse("drop")
    assert (fault.kind.name, fault.vendor, fault.left, fault.chance) == ("drop", None, None, 100)


def test_a_full_specification_is_read_whole():
    fault = parse("latency=2.5%10@phota*3")
    assert (fault.number, fault.chance, fault.vendor, fault.left) == (2.5, 10, "phota", 3)


def test_a_value_may_be_a_url():
    assert parse("result-redirect=http://10.0.0.1:80/a?b=c@deepmode*1").value == "http://10.0.0.1:80/a?b=c"


def test_a_value_has_a_default():
    assert parse("429-retry-after").number == 1


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("dropp", "known faults: .*drop"),
        ("", "known faults"),
        ("drop*many", "known faults"),
        ("drop@acme", "deepmode, chainhub, phota, aimlapi"),
        ("data-null@phota", "it exists for aimlapi"),
        ("latency=slow", "takes a number, not 'slow'"),
        ("drop=1", "takes no value"),
    ],
)
def test_a_wrong_specification_says_what_is_right(specification, message):
    with pytest.raises(UnknownFault, match=message):
        parse(specification)


def test_a_fault_strikes_as_often_as_specified():
    faults = Faults()
    faults.arm("drop*2")
    assert [bool(faults.take("phota", "drop")) for _ in range(3)] == [True, True, False]


def test_a_fault_of_one_vendor_spares_the_others():
    faults = Faults()
    faults.arm("drop@phota")
    assert not faults.take("deepmode", "drop")
    assert faults.take("phota", "drop")


def test_a_fault_that_only_one_vendor_knows_spares_the_others():
    faults = Faults()
    faults.arm("data-null*1")
    assert not faults.take("deepmode", "data-null")
    assert faults.take("aimlapi", "data-null")


def test_chance_strikes_now_and_then_and_repeats_itself():
    def struck(seed):
        faults = Faults(seed)
        faults.arm("drop%30")
        return [bool(faults.take("phota", "drop")) for _ in range(200)]

    assert 30 < sum(struck(1)) < 90
    assert struck(1) == struck(1)


def test_every_fault_says_what_it_does():
    assert all(kind.help and kind.vendors for kind in VOCABULARY.values())
