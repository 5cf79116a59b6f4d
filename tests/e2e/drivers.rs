//! Ordinary drivers, each with all that programs do with it.

use crate::oracle;
use crate::support::provider::Shape;
use crate::support::tools;
use crate::support::world::World;

/// Runs a Python story with tokens of both shapes and holds what it left against the journal.
async fn python_story(script: &str, rows_of_each: usize) {
    let world = World::start().await;
    for (turn, shape) in [Shape::Entra, Shape::Okta].into_iter().enumerate() {
        let token = world.token(shape, "order-worker");
        let mut story = tools::python(script);
        story.envs(world.environment("orders_writer", &token));
        story.env("MARK", format!("{shape:?}"));
        let said = tools::succeed(&mut story);
        let outcomes = oracle::rows_match_journal(&world).await;
        assert_eq!(oracle::rows(&world).await.len(), rows_of_each * (turn + 1));
        for line in said.lines() {
            let [how, marker, xid] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let told = oracle::only(&outcomes, marker);
            assert_eq!(
                (told.outcome.as_str(), told.id),
                (how, xid.parse().ok()),
                "{marker}"
            );
        }
    }
}

#[tokio::test]
async fn psycopg3() {
    python_story(
        "psycopg3_story.py",
        1 + 1 + 1 + 1000 + 50 + 1 + 20 + 1 + 1 + 10 + 1 + 5,
    )
    .await;
}

#[tokio::test]
async fn psycopg2() {
    python_story("psycopg2_story.py", 1 + 1 + 1000 + 30 + 30 + 1 + 1 + 1).await;
}

#[tokio::test]
async fn asyncpg() {
    python_story("asyncpg_story.py", 1 + 1 + 1000 + 50 + 1 + 1 + 1 + 10 + 20 + 1).await;
}
