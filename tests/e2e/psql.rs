//! psql, as a person or a script uses it.

use crate::oracle;
use crate::support::provider::Shape;
use crate::support::tools;
use crate::support::world::World;

#[tokio::test]
async fn psql_writes_and_every_transaction_is_on_record() {
    let world = World::start().await;
    for (rows, shape) in [(3, Shape::Entra), (6, Shape::Okta)] {
        let mark = |what: &str| format!("psql-{shape:?}-{what}");
        let mut client = world.environment("orders_writer", &world.token(shape, "order-worker"));
        client.insert(
            "PGOPTIONS",
            format!("-c gatepost.correlation_id={}", mark("startup")),
        );
        let insert = |what: &str| format!("INSERT INTO orders (marker) VALUES ('{}')", mark(what));
        let set = |what: &str| format!("SET LOCAL gatepost.correlation_id = '{}'", mark(what));
        let commands = [
            insert("startup"),
            "BEGIN".to_owned(),
            set("local"),
            insert("local"),
            "COMMIT".to_owned(),
            "BEGIN".to_owned(),
            set("rolled-back"),
            insert("rolled-back"),
            "ROLLBACK".to_owned(),
            format!("{} /*correlation_id='{}'*/", insert("comment"), mark("comment")),
            "SELECT count(*) FROM orders".to_owned(),
        ];
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        tools::succeed(&mut world.psql(&client, &commands));

        let outcomes = oracle::rows_match_journal(&world).await;
        let rolled_back = oracle::only(&outcomes, &mark("rolled-back"));
        assert_eq!(rolled_back.outcome, "aborted");
        assert!(rolled_back.id.is_some());
        assert_eq!(oracle::rows(&world).await.len(), rows);
    }
}
