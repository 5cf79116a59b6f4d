//! Asking for a ticket: what is understood, what is answered, and what is told when there is none.

use super::*;

const CLIENT: &str = "authorization: Bearer good.client\r\n";
const JSON: &str = "content-type: application/json\r\n";

fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /v1/ticket HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

impl House {
    async fn ask(&self, who: &str, body: &str) -> Reply {
        let headers = format!("authorization: Bearer good.{who}\r\n{JSON}");
        self.api(&post(&headers, body)).await
    }
}

#[tokio::test]
async fn a_ticket_is_handed_out_with_what_it_is_good_for() {
    let house = House::open().await;
    let reply = house.ask("client", r#"{"target": "orders"}"#).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let made = reply.json();
    assert_eq!(made["ticket"], "gpt_0a");
    assert_eq!(made["expires_at"], "1970-01-01T00:05:00Z");
    assert_eq!(made["target"], "orders/orders");
    assert_eq!(made["bound_to"], "127.0.0.1");
    assert_eq!(made["single_use"], false);
    assert!(made["id"].as_str().unwrap().starts_with("t-"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(house.fake.take(), ["act ticket client orders own 300 often"]);

    let all = r#"{"target": "orders", "lifetime": "90s", "single_use": true, "address": "10.0.0.0/8"}"#;
    assert_eq!(house.ask("client", all).await.status, 201);
    let any = r#"{"target": "orders", "lifetime": "15m", "address": "any"}"#;
    assert_eq!(house.ask("client", any).await.status, 201);
    assert_eq!(
        house.fake.take(),
        [
            "act ticket client orders 10.0.0.0/8 90 once",
            "act ticket client orders any 900 often"
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_meant_is_a_bad_request() {
    let house = House::open().await;
    let long = format!(r#"{{"target": "{}"}}"#, "x".repeat(257));
    let large = format!(r#"{{"target": "{}"}}"#, "x".repeat(9_000));
    let rows = [
        ("", 400, "not the JSON"),
        ("{}", 400, "not the JSON"),
        (r#"["orders"]"#, 400, "not the JSON"),
        (r#"{"target": ""}"#, 400, "names a database"),
        (r#"{"target": 5}"#, 400, "not the JSON"),
        (r#"{"target": "orders", "role": "x"}"#, 400, "not the JSON"),
        (
            r#"{"target": "orders", "single_use": "yes"}"#,
            400,
            "not the JSON",
        ),
        (
            r#"{"target": "orders", "lifetime": "16m"}"#,
            400,
            "from 1s to 15m",
        ),
        (r#"{"target": "orders", "lifetime": "0s"}"#, 400, "from 1s to 15m"),
        (
            r#"{"target": "orders", "lifetime": "soon"}"#,
            400,
            "from 1s to 15m",
        ),
        (r#"{"target": "orders", "address": "here"}"#, 400, "an IP address"),
        (
            r#"{"target": "orders", "address": "10.0.0.1/8"}"#,
            400,
            "an IP address",
        ),
        (
            r#"{"target": "eyJhbGciOi", "token": "eyJhbGciOi"}"#,
            400,
            "not the JSON",
        ),
        (&long, 400, "names a database"),
        (&large, 413, "larger than"),
    ];
    for (body, status, told) in rows {
        let reply = house.ask("client", body).await;
        assert_eq!(reply.status, status, "{body:.60}\n{reply:?}");
        assert!(
            reply.body.contains(told) && !reply.body.contains("eyJ"),
            "{reply:?}"
        );
        assert_eq!(
            house.fake.take(),
            ["note client ticket bad_request"],
            "{body:.60}"
        );
    }
    let plain = house.api(&post(CLIENT, r#"{"target": "orders"}"#)).await;
    assert_eq!(plain.status, 415);
    let page = format!("{CLIENT}{JSON}origin: https://evil.example\r\n");
    assert_eq!(
        house.api(&post(&page, r#"{"target": "orders"}"#)).await.status,
        403
    );
    let query = post(&format!("{CLIENT}{JSON}"), r#"{"target": "orders"}"#);
    let query = query.replacen("/v1/ticket", "/v1/ticket?target=orders", 1);
    assert_eq!(house.api(&query).await.status, 400);
    assert!(!house.fake.take().iter().any(|it| it.starts_with("act")));
}

/// An unknown target, one where nothing is granted, and somebody who is granted nothing at all.
#[tokio::test]
async fn nobody_learns_which_targets_there_are() {
    let house = House::open().await;
    let answers = [
        house.ask("client", r#"{"target": "nowhere"}"#).await,
        house.ask("nobody", r#"{"target": "orders"}"#).await,
        house.ask("nobody", r#"{"target": "nowhere"}"#).await,
    ];
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (403, &answers[0].body));
    }
    let told = answers[0].json();
    let client_reads = "no rule permits this identity, database and role";
    assert_eq!(told["detail"], client_reads);
}

#[tokio::test]
async fn each_trouble_has_its_answer() {
    let house = House::open().await;
    let rows = [
        ("revoked", 403, "access was revoked", "not_permitted"),
        ("elsewhere", 403, "no other is offered", "not_permitted"),
        ("full", 429, "are in use", "too_many_tickets"),
        ("late", 401, "token expired 7s ago", "token_rejected"),
        (
            "unrecorded",
            503,
            "nothing is done without a record",
            "unavailable",
        ),
    ];
    for (target, status, told, code) in rows {
        let reply = house.ask("client", &format!(r#"{{"target": "{target}"}}"#)).await;
        assert_eq!(reply.status, status, "{target}\n{reply:?}");
        assert!(reply.body.contains(told), "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(reply.header("retry-after").is_some(), status == 429);
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
        assert_eq!(house.fake.take(), [format!("note client ticket {code}")]);
    }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let house = House::open().await;
    let reply = house.ask("greedy", r#"{"target": "orders"}"#).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("30")));
    assert_eq!(house.fake.take(), ["note greedy ticket too_many_tickets"]);
    // An address is counted before anybody looks at its token.
    house.fake.addresses_wait.store(true, Ordering::SeqCst);
    let reply = house.ask("client", r#"{"target": "orders"}"#).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("60")));
    assert_eq!(house.fake.take(), ["note stranger ticket too_many_tickets"]);
}

#[tokio::test]
async fn the_socket_gives_none() {
    let house = House::open().await;
    let reply = house.socket(&post(JSON, r#"{"target": "orders"}"#)).await;
    assert_eq!(reply.status, 404, "{reply:?}");
    assert!(reply.body.contains("over TLS only"), "{reply:?}");
    assert_eq!(house.fake.take(), [""; 0]);
}
