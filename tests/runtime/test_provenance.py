from ovskit.core.runtime.provenance import append_entry, command_line, merge_entries


def entry(tool: str, previous: list, **more: str) -> list:
    return append_entry(previous, tool=tool, version="1", command=tool, **more)


def test_each_entry_names_the_one_before() -> None:
    chain = entry("ovs-hier", entry("ovs-cluster", entry("ovs-extract", [], model="m", model_sha256="00")))
    assert [e["id"] for e in chain] == ["ovs-extract", "ovs-cluster", "ovs-hier"]
    assert [e["previous"] for e in chain] == [None, "ovs-extract", "ovs-cluster"]
    assert chain[0]["model"] == "m"


def test_the_same_tool_twice_gets_two_ids() -> None:
    chain = entry("ovs-refine", entry("ovs-refine", []))
    assert [e["id"] for e in chain] == ["ovs-refine", "ovs-refine.2"]
    assert chain[1]["previous"] == "ovs-refine"


def test_the_command_line_is_as_a_person_would_type_it() -> None:
    options = {"thresholds": "0.6..0.1", "local": False, "joint": True, "counts": None}
    assert command_line("ovs-cluster", options, ["a b.npz"]) == "ovs-cluster --thresholds 0.6..0.1 --no-local --joint 'a b.npz'"


def test_repeated_options_and_inputs_as_they_are_typed() -> None:
    options = {"set": ["a=1", "b=x y"], "images": ()}
    assert command_line("ovs-train", options, ["-dash.json"]) == "ovs-train --set a=1 --set 'b=x y' -- -dash.json"
    assert command_line("ovs-hier", {}, ["-"]) == command_line("ovs-hier", {}) == "ovs-hier"


def test_shards_of_one_run_merge_into_one_chain() -> None:
    chain = entry("ovs-extract", [])
    assert merge_entries([chain, chain, chain]) == chain


def test_different_chains_keep_both_and_stay_linked() -> None:
    a = entry("ovs-refine", entry("ovs-extract", []))
    b = entry("ovs-refine", append_entry([], tool="ovs-extract", version="1", command="other"))
    merged = merge_entries([a, b])
    assert [e["id"] for e in merged] == ["ovs-extract", "ovs-refine", "ovs-extract.2", "ovs-refine.2"]
    assert merged[3]["previous"] == "ovs-extract.2"
