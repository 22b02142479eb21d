"""What changed between rounds and inside one: names, answers to fixed prompts, cached tokens, the network."""

import random

import pytest

from reports.analysis.evidence import RoundEvidence, RoundTrips, compare, judge, sign_test
from reports.store.run_json import AnswerFacts
from reports.store.seen import Name, Seen

NO_TRIP = RoundTrips()


def of_round(number, fingerprints=(), trip=NO_TRIP, answers=None, cached=(0, 0), ttft=0.3, kind="fingerprint"):
    """`fingerprints`: (text, answers, first s, last s) each."""
    names = tuple(Name(*each) for each in fingerprints)
    return RoundEvidence(number, Seen({kind: names} if names else {}, {}, 0, (), *cached), trip, ttft, answers)


def said(*rounds, by_itself=None):
    return [change.text for change in judge({"groq": rounds}, by_itself or {}).changes]


def a(n=100, first=0.0, last=60.0):
    return "fp_a", n, first, last


def b(n=100, first=0.0, last=60.0):
    return "fp_b", n, first, last


@pytest.mark.parametrize(
    ("rounds", "changes"),
    [
        ([[a()], [a()], [a()]], []),
        ([[a()], [a()], [b()]], ["its fingerprint changed from fp_a to fp_b in round 3"]),
        (
            [[a()], [b()], [a()]],
            [f"its fingerprint changed from fp_{x} to fp_{y} in round {n}" for x, y, n in ("ab2", "ba3")],
        ),
        ([[a(), b(20)], [b(), a(30)], [a()]], []),  # a server that mixes two, and a round that happens to get one
        ([[a()], [a(75), b(25)]], ["a new fingerprint came in round 2, fp_b, in 25% of its answers"]),
        ([[a(50, 0.0, 29.0), b(50, 30.0, 60.0)]], ["its fingerprint changed from fp_a to fp_b inside round 1"]),
        (
            [[a()], [a(50, 0.0, 31.0), b(50, 30.0, 60.0)], [b()]],
            ["its fingerprint changed from fp_a to fp_b inside round 2"],
        ),
        ([[a()], [], [b()]], ["its fingerprint changed from fp_a to fp_b in round 3"]),
        ([[], [a()]], []),
    ],
)  # fmt: skip
def test_a_name_has_changed_where_no_answer_has_the_old_one_or_a_new_one_comes(rounds, changes):
    assert said(*(of_round(number, names) for number, names in enumerate(rounds, 1))) == changes


def test_a_server_with_a_name_for_each_answer_says_nothing():
    rounds = [
        RoundEvidence(number, Seen({"region": (Name(f"r{number}", 1, 0.0, 0.0),)}, {"region": 90}), NO_TRIP, 0.3, None)
        for number in (1, 2)
    ]
    found = judge({"groq": rounds}, {})
    assert not found.changes and found.targets[0].constant == ""


def digests(*changed, of=20, mark="x"):
    return tuple(f"{mark}{place}" if place in changed else f"{place}" for place in range(of))


@pytest.mark.parametrize(
    ("again", "now", "changed"),
    [
        ((), (), False),
        ((), range(20), True),
        ((), range(6), True),  # 2**-6, below 0.05 / 2 rounds
        ((), range(5), False),
        (range(6), range(6), False),  # differs by itself as often
        (range(10), range(10, 20), False),
        (range(3), range(20), True),
        (range(20), range(20), False),  # answers that always differ say nothing
    ],
)
def test_answers_have_changed_only_beyond_what_differs_by_itself(again, now, changed):
    facts = AnswerFacts(target="groq", first=digests(), again=digests(*again), answers=digests(*now, mark="y"))
    answers = compare(facts)
    assert (answers.changed, answers.compared) == (len(now), 20)
    texts = said(of_round(1), of_round(2, answers=answers), of_round(3, answers=answers), by_itself={"groq": (0, 20)})
    assert len(texts) == changed
    if changed:
        assert texts[0].startswith(f"{len(now)} of 20 fixed prompts were answered differently in round 2")


def test_prompts_that_were_not_answered_are_not_compared():
    first = ("a", "b", "", "d")
    facts = AnswerFacts(
        target="t", first=first, again=("a", "b", "c", ""), answers=("z", "", "c", "z"), failure="timeout"
    )
    answers = compare(facts)
    assert (answers.changed, answers.compared, answers.chance, answers.failure) == (2, 2, 0.5, "timeout")


def test_the_level_holds_for_servers_whose_answers_differ_by_themselves():
    """Each prompt of a server has its own chance to be answered otherwise; the server stays the same."""
    rng, found, times = random.Random(5), 0, 2000
    for _ in range(times):
        unsteady = [rng.betavariate(0.5, 2.0) for _ in range(20)]

        def asked(unsteady=unsteady):
            return tuple(f"{rng.random()}" if rng.random() < share else "usual" for share in unsteady)

        first, again = asked(), asked()
        rounds = [of_round(1)]
        for number in range(2, 6):
            facts = AnswerFacts(target="groq", first=first, again=again, answers=asked())
            rounds.append(of_round(number, answers=compare(facts)))
        found += bool(said(*rounds, by_itself={"groq": (1, 20)}))
    assert found / times <= 0.05


def test_the_sign_test_is_the_binomial_tail():
    assert [sign_test(0, 0), sign_test(3, 0), sign_test(2, 1), sign_test(0, 4)] == [1.0, 0.125, 0.5, 1.0]


@pytest.mark.parametrize(
    ("trips", "ttft", "changes"),
    [
        ([(0.02, 0.021, 0.02), (0.02, 0.022, 0.02)], 0.3, []),
        ([(0.02, 0.02, 0.02), (0.06, 0.06, 0.06)], 0.3, ["was 20.0 ms in round 1 and 60.0 ms in round 2"]),
        ([(0.02, 0.02, 0.02), (0.06, 0.06, 0.06)], 3.0, []),  # 40 ms of 3 s can't explain what is compared
        ([(0.0002, 0.0002, 0.0002), (0.0009, 0.0009, 0.0009)], 0.004, []),
        ([(0.02, 0.08, 0.02)], 0.3, ["rose from 20.0 ms to 80.0 ms under the load of round 1"]),
        ([(None, None, None), (0.06, 0.06, 0.06)], 0.3, []),
    ],
)
def test_a_round_trip_that_moved_by_a_notable_part_of_ttft_is_named(trips, ttft, changes):
    rounds = [of_round(number, trip=RoundTrips(*trip), ttft=ttft) for number, trip in enumerate(trips, 1)]
    texts = said(*rounds)
    assert len(texts) == len(changes)
    assert all(change in text for change, text in zip(changes, texts, strict=True)), texts


def test_a_cache_that_fills_from_round_to_round_is_named():
    assert said(of_round(1, cached=(5, 100)), of_round(2, cached=(40, 100)), of_round(3, cached=(60, 100))) == [
        "40% of its prompt tokens came from its cache in round 2, 5% in round 1"
    ]
    assert said(of_round(1, cached=(5, 100)), of_round(2, cached=(9, 100))) == []


def test_what_stayed_is_one_sentence():
    answers = compare(AnswerFacts(target="groq", first=digests(), again=digests(3), answers=digests(5)))
    rounds = [of_round(1, [a()], answers=answers), of_round(2, [a()], answers=answers)]
    [target] = judge({"groq": rounds}, {"groq": (1, 20)}).targets
    assert target.constant == "fingerprint fp_a; at most 1 of 20 fixed prompts answered differently (twice in a row: 1)"
