//! Every route of the table against everybody who may not use it.

use super::*;
use crate::admin::routes::{Purpose, ROUTES, Route};
use crate::domain::AdminAction;

/// A request as it would be sent by somebody who may, with these credentials.
fn request(route: &Route, headers: &str) -> String {
    let (method, path) = (&route.method, route.path.replace(['{', '}'], ""));
    let body = match route.purpose {
        Purpose::Act(AdminAction::Revoke) => r#"{"subject": "x"}"#,
        Purpose::Act(_) => "",
        Purpose::Ticket => r#"{"target": "orders"}"#,
    };
    let kind = if body.is_empty() {
        ""
    } else {
        "content-type: application/json\r\n"
    };
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}{kind}content-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn every_route_is_refused_without_the_right() {
    let house = House::open().await;
    for route in &ROUTES {
        let ask = |headers: &str| request(route, headers);
        // Somebody with another right, which must not help.
        let other = AdminAction::ALL
            .into_iter()
            .find(|action| Purpose::Act(*action) != route.purpose)
            .unwrap();
        let other = format!("authorization: Bearer good.{other}\r\n");
        let boss = "authorization: Bearer good.boss\r\n";
        // What is asked for in the records, and who may.
        let (asked, may) = match route.purpose {
            Purpose::Act(action) => (action.to_string(), action.to_string()),
            Purpose::Ticket => ("ticket".to_owned(), "client".to_owned()),
        };
        let rows = [
            ("", 401, "stranger"),
            ("authorization: Basic dTpw\r\n", 401, "stranger"),
            ("authorization: Bearer broken.token\r\n", 401, "stranger"),
            ("authorization: Bearer good.nobody\r\n", 403, "nobody"),
            (&other, 403, other.trim().rsplit("good.").next().unwrap()),
            (boss, 403, "boss"),
        ];
        let boss_may = matches!(route.purpose, Purpose::Act(_));
        for (headers, expected, who) in rows {
            if boss_may && who == "boss" {
                continue;
            }
            let reply = house.api(&ask(headers)).await;
            assert_eq!(reply.status, expected, "{} {headers}\n{reply:?}", route.path);
            assert_eq!(reply.header("content-type"), Some("application/problem+json"));
            let record = match (route.purpose, expected) {
                (Purpose::Act(_), _) => format!("note {who} {asked} refused"),
                (Purpose::Ticket, 401) => format!("note {who} ticket token_rejected"),
                (Purpose::Ticket, _) => format!("note {who} ticket not_permitted"),
            };
            assert_eq!(house.fake.take(), [record], "{} {headers}", route.path);
        }
        // The same request goes through with the right, and reaches this one handler.
        let right = format!("authorization: Bearer good.{may}\r\n");
        let reply = house.api(&ask(&right)).await;
        assert!(![401, 403, 405].contains(&reply.status), "{reply:?}");
        let seen = house.fake.take();
        let acts: Vec<_> = seen.iter().filter(|it| it.starts_with("act ")).collect();
        assert_eq!(acts.len(), 1, "{seen:?}");
        assert!(acts[0].starts_with(&format!("act {asked}")), "{acts:?}");
    }
}

#[tokio::test]
async fn nothing_exists_outside_of_the_table() {
    let house = House::open().await;
    let boss = "authorization: Bearer good.boss\r\n";
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
    ];
    for route in &ROUTES {
        let path = route.path.replace(['{', '}'], "");
        let same_path: Vec<_> = ROUTES.iter().filter(|other| other.path == route.path).collect();
        for method in methods {
            let asked = if method == "HEAD" { "GET" } else { method };
            if same_path.iter().any(|other| other.method.as_str() == asked) {
                continue;
            }
            let reply = house
                .api(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{boss}\r\n"))
                .await;
            assert_eq!(reply.status, 405, "{method} {path}");
            let allow = reply.header("allow").unwrap();
            assert!(allow.split(", ").any(|it| it == route.method.as_str()), "{allow}");
        }
        for path in [
            format!("{path}/"),
            format!("{path}/x/y"),
            path.replacen("/v1", "/v2", 1),
            path.to_uppercase(),
        ] {
            let reply = house
                .api(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n{boss}\r\n"))
                .await;
            assert_eq!(reply.status, 404, "{path}");
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/metrics",
        "/healthz",
        "/v1/sessions/..%2fpools",
        "/v1/tickets",
        "*",
    ] {
        let reply = house
            .api(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n{boss}\r\n"))
            .await;
        assert_eq!(reply.status, 404, "{path}");
    }
    assert_eq!(house.fake.take(), [""; 0]);
}

#[tokio::test]
async fn a_head_answers_as_a_get_without_its_body() {
    let house = House::open().await;
    let ask = |method| {
        format!("{method} /v1/policy HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good.boss\r\n\r\n")
    };
    let (get, head) = (house.api(&ask("GET")).await, house.api(&ask("HEAD")).await);
    assert_eq!((get.status, head.status), (200, 200));
    assert_eq!(head.body, "");
    assert_eq!(head.header("content-length"), get.header("content-length"));
    let refused = "HEAD /v1/policy HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(house.api(refused).await.status, 401);
}
