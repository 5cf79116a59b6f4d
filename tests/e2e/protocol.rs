//! The ways in: how TLS begins, which protocol version is asked for, and cancelling in each.

use crate::harness::world::World;

#[test]
fn every_way_in_works_and_cancels_only_its_own() {
    let world = World::start();
    let consumer = world.consumer();
    let ways = [
        ("sslnegotiation=postgres", "30000"),
        ("sslnegotiation=direct", "30000"),
        (
            "sslnegotiation=postgres max_protocol_version=3.2 min_protocol_version=3.2",
            "30002",
        ),
        ("sslnegotiation=direct max_protocol_version=latest", "30002"),
        (
            "gssencmode=disable channel_binding=disable sslmode=require",
            "30000",
        ),
    ];
    for (way, version) in ways {
        let told = world.python(&consumer, "cancel_story.py", &[way]).well();
        assert_eq!(told, version, "{way}");
    }
    world.settled();
    world.verify_journal();
}
