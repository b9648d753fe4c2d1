"""The rows of filters, for every request that takes one, and of the options of searches that come with them."""

from dataclasses import replace

from harness.bad_input.case import Bad, bad
from kintsugi.v1 import filters_pb2, search_pb2

NAN, INF = float("nan"), float("inf")
MOST = 2**32 - 1
LONG, WIDE = "x" * 1025, "é" * 513
TOO_LONG = "x" * 513

Filter, Value = filters_pb2.Filter, filters_pb2.AttributeValue
HAS_A = Filter(exists=filters_pb2.Exists(attribute="a"))


def filter_rows(rpc: str, path: str) -> list[Bad]:
    """A filter at `path`."""
    return [
        bad(rpc, path, "without condition", Filter(), path, "no condition", "exactly one"),
        *_attributes(rpc, path),
        *_equals(rpc, f"{path}.equals"),
        *_one_of(rpc, f"{path}.one_of"),
        *_range(rpc, f"{path}.range"),
        *_joined(rpc, path),
    ]


def _attributes(rpc: str, path: str) -> list[Bad]:
    """The names of attributes. What else their conditions lack is found later."""
    rows = []
    for kind in ("equals", "one_of", "range", "exists"):
        name = f"{path}.{kind}.attribute"
        rows += [
            bad(rpc, name, "empty", "", name, "0 bytes", "1 to 512", also=_set(f"{path}.{kind}", kind)),
            bad(rpc, name, "too long", TOO_LONG, name, "513", "1 to 512"),
            bad(rpc, name, "too long in bytes", "é" * 257, name, "514", "1 to 512"),
        ]
    exists = f"{path}.exists"
    rows.append(bad(rpc, exists, "empty", filters_pb2.Exists(), f"{exists}.attribute", "0 bytes", "1 to 512"))
    return rows


def _set(path: str, kind: str) -> tuple[tuple[str, object], ...]:
    """Chooses a condition whose fields are all left out: an empty name alone would not."""
    kinds = {"equals": filters_pb2.Equals, "one_of": filters_pb2.OneOf, "range": filters_pb2.Range}
    return ((path, kinds.get(kind, filters_pb2.Exists)()),)


def _value(rpc: str, path: str, name: str) -> list[Bad]:
    """A value at `path` of the condition whose attribute is `name`."""
    also = ((name, "a"),)
    plain = path.replace("[0]", "")
    return [
        bad(rpc, f"{path}.text", "too long", LONG, f"{path}.text", "1025", "at most 1024", also=also),
        bad(rpc, f"{path}.text", "too long in bytes", WIDE, f"{path}.text", "1026", "at most 1024", also=also),
        *(
            bad(rpc, f"{path}.number", f"{number}", number, f"{path}.number", f"is {number}", "finite", also=also)
            for number in (NAN, INF, -INF)
        ),
        *([] if "[0]" in path else [bad(rpc, plain, "empty", Value(), plain, "no value", "text, number", also=also)]),
    ]


def _equals(rpc: str, path: str) -> list[Bad]:
    value, name = f"{path}.value", f"{path}.attribute"
    return [
        bad(rpc, path, "empty", filters_pb2.Equals(), name, "0 bytes", "1 to 512"),
        *_value(rpc, value, name),
    ]


def _one_of(rpc: str, path: str) -> list[Bad]:
    values, name = f"{path}.values", f"{path}.attribute"
    also = ((name, "a"),)
    one = filters_pb2.OneOf(attribute="a", values=[Value(number=1)])
    first = [replace(row, changes=((path, one), row.changes[0])) for row in _value(rpc, f"{values}[0]", name)]
    return [
        bad(rpc, path, "empty", filters_pb2.OneOf(), name, "0 bytes", "1 to 512"),
        bad(rpc, values, "none", [], values, "0 entries", "1 to 1000", also=also),
        bad(rpc, values, "too many", [Value(number=n) for n in range(1001)], values, "1001", "1 to 1000", also=also),
        bad(rpc, values, "one without value", [Value(boolean=True), Value()], f"{values}[1]", "no value", also=also),
        *first,
    ]


def _range(rpc: str, path: str) -> list[Bad]:
    name = f"{path}.attribute"
    also = ((name, "a"),)
    rows = [
        bad(rpc, path, "without bounds", filters_pb2.Range(attribute="a"), path, "no bound", "at least one"),
        bad(rpc, f"{path}.below.number", "of another kind", 1.0, path, "different kinds", "all text or all number",
            also=((f"{path}.above.text", "x"), *also)),
        bad(rpc, f"{path}.at_least", "beside above", Value(number=1), f"{path}.at_least", "with above", "only one",
            also=((f"{path}.above.number", 1.0), *also)),
        bad(rpc, f"{path}.at_most", "beside below", Value(number=1), f"{path}.at_most", "with below", "only one",
            also=((f"{path}.below.number", 1.0), *also)),
    ]  # fmt: skip
    for bound in ("above", "at_least", "below", "at_most"):
        at = f"{path}.{bound}"
        rows += _value(rpc, at, name)
        rows += [
            bad(rpc, f"{at}.boolean", f"{flag}", flag, at, "boolean", "text or number", also=also)
            for flag in (True, False)
        ]
    return rows


def _joined(rpc: str, path: str) -> list[Bad]:
    lists, many = filters_pb2.FilterList, [HAS_A] * 256
    rows = [
        bad(rpc, f"{path}.not", "without condition", Filter(), f"{path}.not", "no condition", "exactly one"),
        bad(rpc, f"{path}.not", "too deep", nested(16), path + ".not" * 16, "deeper than 16", "at most 16"),
        bad(rpc, f"{path}.not", "much too deep", nested(90), path + ".not" * 16, "deeper than 16", "at most 16"),
    ]
    for kind in ("all", "any"):
        at = f"{path}.{kind}"
        second = Filter(**{kind: lists(filters=[HAS_A, Filter()])})
        rows += [
            bad(rpc, at, "empty", lists(), f"{at}.filters", "0 entries", "at least 1"),
            bad(rpc, f"{at}.filters", "one without condition", [HAS_A, Filter()], f"{at}.filters[1]", "no condition"),
            bad(rpc, f"{at}.filters", "too many", many, path, "more than 256 conditions", "at most 256"),
            bad(rpc, f"{at}.filters", "nested", [second], f"{at}.filters[0].{kind}.filters[1]", "no condition"),
        ]
    return rows


def nested(depth: int) -> filters_pb2.Filter:
    """A filter that nests this deep."""
    condition = HAS_A
    for _ in range(depth - 1):
        condition = Filter(**{"not": condition})
    return condition


def narrowing(rpc: str) -> list[Bad]:
    """What narrows a search beside its filter."""
    least, offset, group = "options.min_score", "options.offset", "options.group_by"
    name, size = f"{group}.attribute", f"{group}.size"
    by_a = ((group, search_pb2.GroupBy(attribute="a")),)
    return [
        *filter_rows(rpc, "options.filter"),
        *(bad(rpc, least, f"{value}", value, least, f"is {value}", "finite") for value in (NAN, INF, -INF)),
        bad(rpc, offset, "beyond", 991, offset, "991", "k of 10", "at most 1000"),
        bad(rpc, offset, "beyond with k", 1, offset, "is 1 with", "k of 1000", "at most 1000", also=(("options.k", 1000),)),
        bad(rpc, offset, "huge", MOST, offset, str(MOST), "at most 1000"),
        bad(rpc, offset, "with groups", 1, offset, "is 1", "must be 0 with group_by", also=by_a),
        bad(rpc, group, "empty", search_pb2.GroupBy(), name, "0 bytes", "1 to 512"),
        bad(rpc, name, "empty", "", name, "0 bytes", "1 to 512", also=((size, 1),)),
        bad(rpc, name, "too long", TOO_LONG, name, "513", "1 to 512"),
        bad(rpc, size, "too many", 101, size, "101", "1 to 100", also=((name, "a"),)),
        bad(rpc, size, "huge", MOST, size, str(MOST), "1 to 100", also=((name, "a"),)),
        bad(rpc, size, "too many with k", 100, size, "100 with", "k of 11", "at most 1000",
            also=((name, "a"), ("options.k", 11))),
    ]  # fmt: skip


def cannot_be_bad(rpc: str, path: str) -> dict[str, str]:
    """The fields of a filter at `path` that cannot be bad, and why."""
    flag = "both values of a flag are good"
    return {f"{rpc} {path}.equals.value.boolean": flag, f"{rpc} {path}.one_of.values.boolean": flag}
