"""The commands of an upgrade: what each demands, what it changes, and how it is repeated."""

import pytest

from kintsugi.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from kintsugi.projections import artifact
from kintsugi.registry.records import UpgradeState
from kintsugi.v1 import upgrades_pb2

MIGRATED = {"documents": 100, "with_old_vector": 100, "with_new_vector": 100}


async def test_a_plan_is_registered_with_its_artifacts(planned, registry, artifacts):
    """Nothing else changes, and all that it names can be read."""
    before = registry.view.collections["uid1"]
    upgrade = await planned()
    assert (upgrade.number, upgrade.old_model, upgrade.state) == (1, "old", UpgradeState.PLANNED)
    assert registry.view.upgrades == {"uid1": upgrade}
    assert registry.view.collections["uid1"] == before
    assert set(upgrade.artifacts) == set(artifacts.held)
    assert (upgrade.bridge, upgrade.gallery_map) == (upgrade.reverse, "")


async def test_an_artifact_that_may_be_gone_in_a_minute_is_missed(planned, registry, artifacts):
    """Redis could let go of it before anybody hears of the plan. One that an earlier plan names is kept."""
    artifacts.is_late = True
    with pytest.raises(FailedPrecondition, match="which is not here") as raised:
        await planned()
    assert raised.value.reason == "ARTIFACT_NOT_UPLOADED"
    assert not registry.view.upgrades
    artifacts.kept = set(artifacts.held)
    assert (await planned()).state is UpgradeState.PLANNED


async def test_a_plan_that_was_not_started_is_replaced(planned):
    """Under its number; the last one counts."""
    await planned()
    again = await planned(min_recall=0.5)
    assert (again.number, again.min_recall) == (1, 0.5)


@pytest.mark.parametrize("state", [UpgradeState.SERVING_BOTH, UpgradeState.BACKFILLING, UpgradeState.FINISHING])
async def test_there_is_one_upgrade_at_a_time(planned, place, state):
    """While one is under way no other is planned."""
    await planned()
    await place(state)
    with pytest.raises(AlreadyExists, match=f"is {state}") as raised:
        await planned()
    assert raised.value.reason == "UPGRADE_UNDER_WAY"


async def test_after_a_rollback_documents_without_old_vectors_are_re_embedded_first(planned, place, servers):
    """Another plan would replace the projection by which they are found; force does it all the same."""
    await planned()
    await place(UpgradeState.BACKFILLING)
    await place(UpgradeState.ROLLED_BACK)
    servers.progress = {"documents": 100, "with_old_vector": 97, "with_new_vector": 3}
    with pytest.raises(FailedPrecondition, match="6 of 200 documents of docs lack a vector of old"):
        await planned()
    assert (await planned(force=True)).number == 2
    await place(UpgradeState.ROLLED_BACK)
    servers.progress = MIGRATED
    assert (await planned()).number == 3


async def test_a_plan_that_was_given_up_before_its_start_may_be_followed_by_another(
    planned, upgrades, servers, deadline
):
    """Nothing was written for it, and no replica has anything to tell of it."""
    await planned()
    await upgrades.roll_back("docs", deadline)
    servers.progress = {}
    assert (await planned()).number == 2


async def test_start_adds_the_model_and_may_be_repeated(planned, upgrades, registry, deadline):
    """Both models take requests from now on; the old one still serves by default."""
    await planned()
    started = await upgrades.start("docs", deadline)
    assert started.state is UpgradeState.SERVING_BOTH
    collection = registry.view.collections["uid1"]
    assert [model.name for model in collection.live_models] == ["old", "new"]
    assert collection.serving_model == "old"
    assert await upgrades.start("docs", deadline) == started


async def test_commands_without_an_upgrade_are_not_found(upgrades, deadline):
    """Nor those for a collection that is not there."""
    with pytest.raises(NotFound) as raised:
        await upgrades.start("docs", deadline)
    assert raised.value.reason == "UPGRADE_NOT_FOUND"
    with pytest.raises(NotFound) as raised:
        await upgrades.start("other", deadline)
    assert raised.value.reason == "COLLECTION_NOT_FOUND"


async def test_a_pause_is_a_flag(planned, upgrades, place, deadline):
    """It ends with resume, both may be repeated, and neither is for a plan that was not started."""
    await planned()
    with pytest.raises(FailedPrecondition, match="is planned"):
        await upgrades.pause("docs", deadline, paused=True)
    await place(UpgradeState.BACKFILLING)
    for paused in (True, True, False, False):
        assert (await upgrades.pause("docs", deadline, paused=paused)).paused is paused


async def test_cut_over_needs_as_many_documents_as_planned(planned, upgrades, place, servers, registry, deadline):
    """As long as one replica that has the whole log says otherwise."""
    await planned(min_migrated=0.9)
    await place(UpgradeState.BACKFILLING)
    servers.progress = MIGRATED
    servers.of_member = {"shard-b": {"with_new_vector": 89}}
    with pytest.raises(FailedPrecondition, match="178 of 200 documents .* at least 0.9") as raised:
        await upgrades.cut_over("docs", deadline)
    assert raised.value.reason == "NOT_MIGRATED"
    servers.of_member = {"shard-b": {"with_new_vector": 90}}
    assert (await upgrades.cut_over("docs", deadline)).state is UpgradeState.CUT_OVER
    assert registry.view.collections["uid1"].serving_model == "new"
    servers.silent = {"shard-a"}
    assert (await upgrades.cut_over("docs", deadline)).state is UpgradeState.CUT_OVER


@pytest.mark.parametrize(
    ("measured", "by"),
    [
        ((0.94, 100, 1.0), "100 live searches"),
        ((None, 0, 0.94), "100 searches for documents of its own, made now"),
        ((1.0, 99, 0.94), "100 searches for documents of its own, made now"),
    ],
)
async def test_cut_over_needs_the_recall_as_planned(planned, upgrades, place, servers, deadline, measured, by):
    """As live searches measured it; an index that few have searched is measured now. The refusal says how and how much."""
    await planned()
    await place(UpgradeState.BACKFILLING)
    servers.progress = MIGRATED
    servers.live_recall, servers.live_queries, servers.checked_recall = measured
    wanted = f"recall of the index of new is 0.9400 at shard 0 on shard-a by {by}, must be at least 0.95"
    with pytest.raises(FailedPrecondition, match=wanted) as raised:
        await upgrades.cut_over("docs", deadline)
    assert raised.value.reason == "RECALL_TOO_LOW"
    assert servers.checks == ([] if servers.live_queries == 100 else [("shard-a", "new")])


@pytest.mark.parametrize("change", [{"number": 2}, {"changed_at_us": 77}])
async def test_a_step_is_taken_by_the_upgrade_that_was_checked(
    planned, upgrades, place, servers, registry, deadline, change
):
    """Another one that came in between, or the same one back in its state, is not moved by what was found before."""
    await planned()
    servers.progress = MIGRATED
    for state, command in ((UpgradeState.BACKFILLING, upgrades.cut_over), (UpgradeState.CUT_OVER, upgrades.finish)):
        await place(state, number=1, changed_at_us=5)

        async def meanwhile(state=state):
            servers.asked = None
            await place(state, **change)

        servers.asked = meanwhile
        with pytest.raises(Unavailable, match="the upgrade of docs moved while it was checked") as raised:
            await command("docs", deadline)
        assert raised.value.reason == "REGISTRY_MOVED"
        assert registry.view.upgrades["uid1"].state is state
        assert (await command("docs", deadline)).state is not state


async def test_an_index_that_is_being_built_has_no_recall_yet(planned, upgrades, place, servers, deadline):
    """No cut-over to what was not measured."""
    await planned()
    await place(UpgradeState.BACKFILLING)
    servers.progress, servers.indexed = MIGRATED, False
    with pytest.raises(Unavailable, match="the recall of the index of new is not known: shard 0 on shard-a builds it"):
        await upgrades.cut_over("docs", deadline)
    servers.indexed = True
    assert (await upgrades.cut_over("docs", deadline)).state is UpgradeState.CUT_OVER


async def test_who_does_not_answer_is_not_guessed_about(planned, upgrades, place, servers, registry, deadline):
    """A living replica must say how far it is; one without a lease holds nothing up, unless no other has its shard."""
    await planned()
    await place(UpgradeState.BACKFILLING)
    servers.progress, servers.silent = MIGRATED, {"shard-a"}
    with pytest.raises(Unavailable, match="shard 0 on shard-a does not answer") as raised:
        await upgrades.cut_over("docs", deadline)
    assert raised.value.retry_delay_s
    leases = dict(registry.leases)
    registry.leases.clear()
    with pytest.raises(Unavailable, match="shard 0 has no replica in sync"):
        await upgrades.cut_over("docs", deadline)
    registry.leases["shard-b"] = leases["shard-b"]
    assert (await upgrades.cut_over("docs", deadline)).state is UpgradeState.CUT_OVER


async def test_finish_needs_every_document(planned, upgrades, place, servers, registry, deadline):
    """With one document too few nothing changes; then the old model takes no more requests."""
    await planned()
    await place(UpgradeState.CUT_OVER)
    servers.progress = {**MIGRATED, "with_new_vector": 99}
    with pytest.raises(FailedPrecondition, match="2 of 200 documents of docs lack a vector of new"):
        await upgrades.finish("docs", deadline)
    servers.progress, servers.of_member = MIGRATED, {"shard-b": {"with_new_vector": 99}}
    servers.seq_of = {"shard-b": 49}  # it will see the rest
    assert (await upgrades.finish("docs", deadline)).state is UpgradeState.FINISHING
    assert (await upgrades.finish("docs", deadline)).state is UpgradeState.FINISHING
    assert registry.view.collections["uid1"].retired == ("old",)


@pytest.mark.parametrize(
    "state",
    [UpgradeState.SERVING_BOTH, UpgradeState.MAPPING, UpgradeState.BACKFILLING, UpgradeState.CUT_OVER],
)
async def test_rollback_returns_to_the_old_model(planned, upgrades, place, registry, deadline, state):
    """From any state before the end, and again without effect."""
    await planned()
    await place(state)
    assert (await upgrades.roll_back("docs", deadline)).state is UpgradeState.ROLLING_BACK
    assert (await upgrades.roll_back("docs", deadline)).state is UpgradeState.ROLLING_BACK
    collection = registry.view.collections["uid1"]
    assert (collection.serving_model, collection.retired) == ("old", ("new",))


async def test_what_the_state_does_not_allow_is_refused(planned, upgrades, place, registry, deadline):
    """The message names the state; nothing changes."""
    await planned()
    for state, command in (
        (UpgradeState.PLANNED, upgrades.cut_over),
        (UpgradeState.PLANNED, upgrades.finish),
        (UpgradeState.FINISHING, upgrades.roll_back),
        (UpgradeState.FINISHED, upgrades.roll_back),
        (UpgradeState.ROLLED_BACK, upgrades.start),
    ):
        await place(state)
        before = registry.view.upgrades["uid1"]
        with pytest.raises(FailedPrecondition, match=f"is {state}") as raised:
            await command("docs", deadline)
        assert raised.value.reason == "UPGRADE_STATE"
        assert registry.view.upgrades["uid1"] == before


async def test_a_description_has_progress_and_report(planned, upgrades, place, servers, artifacts, plan, deadline):
    """One entry per replica that answers; the report comes from Redis or from any shard server."""
    upgrade = await planned()
    await place(UpgradeState.BACKFILLING)
    servers.silent = {"shard-b"}
    servers.progress = {**MIGRATED, "with_new_vector": 40}
    found = await upgrades.get("docs", deadline)
    assert (found.upgrade.state, found.upgrade.new_model.name) == (upgrades_pb2.UPGRADE_STATE_BACKFILLING, "new")
    assert list(found.upgrade.query_vectors) == ["new"]
    assert found.upgrade.waits_for == "cut-over; 120 of 200 documents lack a vector of new"
    assert [(one.shard, one.member, one.with_new_vector) for one in found.shards] == [
        (0, "shard-a", 40),
        (1, "shard-a", 40),
    ]
    assert found.report == plan().report
    artifacts.held.clear()
    assert (await upgrades.get("docs", deadline)).report == b""
    servers.artifacts = {upgrade.report: b"another file"}
    assert (await upgrades.get("docs", deadline)).report == b""
    servers.artifacts = {artifact.digest(plan().report): plan().report}
    assert (await upgrades.get("docs", deadline)).report == plan().report
