//! What one caller is told, what is recorded and in which order, and what no request may carry.

use super::*;

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

const BOSS: &str = "authorization: Bearer good.boss\r\n";
const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn an_act_is_on_record_before_it_happens() {
    let house = House::open().await;
    let revoke = post(
        "/v1/revocations",
        &format!("{BOSS}{JSON}"),
        r#"{"client_id": "w", "for": "2h"}"#,
    );
    let reply = house.api(&revoke).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let made = reply.json();
    assert_eq!(made["kind"], "client_id");
    assert_eq!(made["until"], "1970-01-01T02:01:00Z");
    assert_eq!(
        house.fake.take(),
        [
            "record boss revoke permitted [client_id w for 2h]",
            "act revoke by boss (dev)",
            "record boss revoke done [client_id w for 2h]",
        ]
    );
    assert_eq!(house.api(&get("/v1/sessions", BOSS)).await.status, 200);
    assert_eq!(
        house.fake.take(),
        ["act sessions.list", "record boss sessions.list done"]
    );
}

#[tokio::test]
async fn without_a_journal_nothing_is_done_but_looking() {
    let house = House::open().await;
    house.fake.journal_fails.store(true, Ordering::SeqCst);
    for (method, path) in [
        ("POST", "/v1/reload"),
        ("DELETE", "/v1/sessions/s-1"),
        ("POST", "/v1/logins/rotate"),
    ] {
        let reply = house
            .socket(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(
            reply.body.contains("nothing is done without a record"),
            "{reply:?}"
        );
        assert_eq!(house.fake.take(), [""; 0], "{path}");
    }
    assert_eq!(house.socket(&get("/v1/sessions", "")).await.status, 200);
}

#[tokio::test]
async fn what_went_wrong_is_told_with_what_to_do() {
    let house = House::open().await;
    let call = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let rows = [
        ("DELETE", "/v1/sessions/s-2", 404, "session s-2 is not open"),
        ("POST", "/v1/reload", 409, "1 mistake(s)"),
        ("POST", "/v1/providers/okta/refresh", 503, "it does not answer"),
    ];
    for (method, path, status, detail) in rows {
        let reply = house.socket(&call(method, path)).await;
        let problem = reply.json();
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["hint"].as_str().unwrap().is_empty());
        let seen = house.fake.take();
        assert!(seen.last().unwrap().contains(" failed"), "{seen:?}");
    }
    let mistakes = house.socket(&call("POST", "/v1/reload")).await.json();
    assert!(
        mistakes["mistakes"][0]
            .as_str()
            .unwrap()
            .starts_with("p.yaml:1:4: not that")
    );
    let killed = house.socket(&call("DELETE", "/v1/sessions/s-1")).await;
    assert_eq!(
        (killed.status, &killed.json()["ending"]),
        (202, &Value::Bool(true))
    );
}

#[tokio::test]
async fn challenges_are_those_of_the_standard() {
    let house = House::open().await;
    let challenge = |reply: &Reply| reply.header("www-authenticate").map(str::to_owned);
    let none = house.api(&get("/v1/pools", "")).await;
    assert_eq!(challenge(&none).as_deref(), Some("Bearer realm=\"gatepost\""));
    let broken = house
        .api(&get("/v1/pools", "authorization: Bearer x.y.z\r\n"))
        .await;
    let expected = "Bearer realm=\"gatepost\", error=\"invalid_token\"";
    assert_eq!(
        (broken.status, challenge(&broken).as_deref()),
        (401, Some(expected))
    );
    // Nobody can say yet whether the token is good.
    let down = house
        .api(&get("/v1/pools", "authorization: Bearer down.x\r\n"))
        .await;
    assert_eq!((down.status, challenge(&down)), (503, None));
}

/// Requests that could be understood in two ways, or carry a token where it does not belong.
#[tokio::test]
async fn tricks_with_tokens_are_refused_and_no_token_is_repeated() {
    let house = House::open().await;
    let long = format!("authorization: Bearer good.{}\r\n", "x".repeat(30_000));
    let rows: &[(&str, &str, u16)] = &[
        (
            "/v1/pools",
            "authorization: Bearer good.boss, Bearer good.boss\r\n",
            400,
        ),
        ("/v1/pools", "authorization: Bearer good.boss good.boss\r\n", 400),
        (
            "/v1/pools",
            "authorization: Bearer good.boss\r\nauthorization: Bearer good.boss\r\n",
            400,
        ),
        (
            "/v1/pools",
            "authorization: Bearer good.boss\r\nAuthorization: Basic dTpw\r\n",
            400,
        ),
        ("/v1/pools", "authorization: Bearer \"good.boss\"\r\n", 400),
        ("/v1/pools", "authorization: Bearer \r\n", 400),
        ("/v1/pools", "authorization: good.boss\r\n", 401),
        ("/v1/pools", "x-authorization: Bearer good.boss\r\n", 401),
        ("/v1/pools", "cookie: token=good.boss\r\n", 401),
        ("/v1/pools?access_token=good.boss", "", 401),
        ("/v1/pools?access_token=good.boss", BOSS, 400),
        ("/v1/pools?x", BOSS, 400),
        (
            "/v1/pools",
            "authorization: Bearer good.boss\r\norigin: https://evil.example\r\n",
            403,
        ),
        (
            "/v1/pools",
            "authorization: Bearer good.boss\r\norigin: null\r\n",
            403,
        ),
        ("/v1/pools", &long, 431),
        ("/v1/pools", "authorization: bearer good.boss\r\n", 200),
        ("/v1/pools", "authorization: BEARER   good.boss\r\n", 200),
    ];
    for (path, headers, expected) in rows {
        let reply = house.api(&get(path, headers)).await;
        assert_eq!(reply.status, *expected, "{path} {headers:.80}\n{reply:.300?}");
        assert!(
            !reply.head.contains("good.") && !reply.body.contains("good."),
            "{reply:?}"
        );
        let acted = house.fake.take().iter().any(|it| it.starts_with("act"));
        assert_eq!(acted, *expected == 200, "{headers:.80}");
    }
}

#[tokio::test]
async fn bodies_are_small_json_or_nothing() {
    let house = House::open().await;
    let with_json = format!("{BOSS}{JSON}");
    let large = format!(r#"{{"subject": "{}"}}"#, "x".repeat(9_000));
    let rows = [
        ("/v1/revocations", with_json.as_str(), "", 400),
        ("/v1/revocations", &with_json, "{", 400),
        ("/v1/revocations", BOSS, r#"{"subject": "x"}"#, 415),
        ("/v1/revocations", &with_json, &large, 413),
        ("/v1/reload", &with_json, "{}", 400),
        ("/v1/logins/rotate", &with_json, r#"{"target": "orders"}"#, 200),
        ("/v1/logins/rotate", BOSS, "", 200),
    ];
    for (path, headers, body, expected) in rows {
        let reply = house.api(&post(path, headers, body)).await;
        assert_eq!(reply.status, expected, "{path} {body:.40}\n{reply:?}");
        let seen = house.fake.take();
        let acted = seen.iter().any(|it| it.starts_with("act"));
        assert_eq!(acted, expected == 200, "{seen:?}");
        assert!(!seen.is_empty(), "{path} left no record");
    }
    // A length that is not told is counted too.
    let chunk = "2800\r\n".to_owned() + &"x".repeat(0x2800) + "\r\n0\r\n\r\n";
    let chunked = format!(
        "POST /v1/revocations HTTP/1.1\r\nhost: x\r\n{BOSS}{JSON}transfer-encoding: chunked\r\n\r\n{chunk}"
    );
    assert_eq!(house.api(&chunked).await.status, 413);
}

#[tokio::test]
async fn the_socket_knows_its_callers_by_their_user() {
    let house = House::open().await;
    let reply = house.socket(&get("/v1/policy", "")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        house.fake.take(),
        ["act policy.show", "record local policy.show done"]
    );
    // A token would look as if it counted.
    assert_eq!(house.socket(&get("/v1/policy", BOSS)).await.status, 400);
    let page = house
        .socket(&get("/v1/policy", "origin: http://localhost\r\n"))
        .await;
    assert_eq!(page.status, 403);
    assert_eq!(
        house.fake.take(),
        ["note local policy.show refused", "note local policy.show refused"]
    );
}

#[tokio::test]
async fn somebody_elses_user_is_refused_at_the_socket() {
    let fake = Fake::new();
    let door = crate::admin::api::Door::Socket {
        uid: 4_711,
        operator: crate::domain::LocalOperator::recognise(4_711, 999),
    };
    let request = hyper::Request::get("/v1/policy")
        .body(http_body_util::Empty::new())
        .unwrap();
    let response = crate::admin::api::answer(fake.clone(), door, request).await;
    assert_eq!(response.status(), 403);
    assert_eq!(fake.take(), ["note local policy.show refused"]);
}

#[tokio::test]
async fn listings_are_bounded_and_tell_the_total() {
    let house = House::open().await;
    let pools = house.reach_socket().get("/v1/pools").await.unwrap();
    assert_eq!(pools.body["total"], 10_001);
    assert_eq!(pools.body["pools"].as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn our_client_speaks_to_both_doors_and_checks_the_certificate() {
    let house = House::open().await;
    let body = serde_json::json!({"subject": "bob", "reason": "left"});
    for reach in [house.reach_socket(), house.reach_api("boss", "ca.crt")] {
        let made = reach.post("/v1/revocations", Some(&body)).await.unwrap();
        assert_eq!((made.status, made.body["whom"].as_str()), (201, Some("bob")));
        let lifted = reach.delete("/v1/revocations/r-1").await.unwrap();
        assert_eq!((lifted.status, lifted.is_good()), (200, true));
    }
    let nobody = house
        .reach_api("nobody", "ca.crt")
        .get("/v1/pools")
        .await
        .unwrap();
    assert_eq!((nobody.status, nobody.is_good()), (403, false));
    // A certificate that was replaced is shown to the next connection.
    house.change_certificate("new.crt");
    let error = house
        .reach_api("boss", "ca.crt")
        .get("/v1/pools")
        .await
        .unwrap_err();
    assert!(
        matches!(error, crate::admin::client::ClientError::Tls { .. }),
        "{error:?}"
    );
    let reply = house.reach_api("boss", "new.crt").get("/v1/pools").await.unwrap();
    assert_eq!(reply.status, 200);
    let gone = Reach::Socket(house.folder.path().join("nowhere.sock"));
    let error = gone.get("/v1/pools").await.unwrap_err().to_string();
    assert!(error.starts_with("no gatepost answers at "), "{error}");
}
