//! The one table of routes: what exists, and what each is for.

use hyper::Method;

use crate::domain::AdminAction;

/// Longer than any session reference, provider or revocation id.
const ARGUMENT_BYTES_MAX: usize = 64;

/// One thing that can be asked for.
#[derive(Clone, Debug)]
pub struct Route {
    pub method: Method,
    /// Segments between slashes; one in braces takes any name.
    pub path: &'static str,
    pub purpose: Purpose,
}

/// Whom a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For operators with the right to this.
    Act(AdminAction),
    /// For clients with a token of their own; only over TLS.
    Ticket,
}

/// Everything there is. A path that is not here does not exist.
pub static ROUTES: [Route; 12] = [
    route(Method::GET, "/v1/sessions", AdminAction::SessionsList),
    route(
        Method::DELETE,
        "/v1/sessions/{reference}",
        AdminAction::SessionsKill,
    ),
    route(Method::GET, "/v1/pools", AdminAction::PoolsList),
    route(Method::GET, "/v1/logins", AdminAction::LoginsList),
    route(Method::POST, "/v1/logins/rotate", AdminAction::LoginsRotate),
    route(Method::GET, "/v1/policy", AdminAction::PolicyShow),
    route(Method::POST, "/v1/reload", AdminAction::Reload),
    route(
        Method::POST,
        "/v1/providers/{name}/refresh",
        AdminAction::KeysRefresh,
    ),
    route(Method::GET, "/v1/revocations", AdminAction::RevocationsList),
    route(Method::POST, "/v1/revocations", AdminAction::Revoke),
    route(
        Method::DELETE,
        "/v1/revocations/{id}",
        AdminAction::RevocationsLift,
    ),
    Route {
        method: Method::POST,
        path: "/v1/ticket",
        purpose: Purpose::Ticket,
    },
];

const fn route(method: Method, path: &'static str, action: AdminAction) -> Route {
    Route {
        method,
        path,
        purpose: Purpose::Act(action),
    }
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way<'p> {
    To {
        purpose: Purpose,
        /// What stands in the place of the braces.
        argument: Option<&'p str>,
    },
    /// The path exists for these methods only.
    WrongMethod(Vec<&'static str>),
    Nowhere,
}

/// HEAD is answered wherever GET is (RFC 9110, 9.3.2).
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Way<'p> {
    let mut allowed = Vec::new();
    for route in &ROUTES {
        let Some(argument) = fits(route.path, path) else {
            continue;
        };
        if route.method == *method || (route.method == Method::GET && *method == Method::HEAD) {
            return Way::To {
                purpose: route.purpose,
                argument,
            };
        }
        if route.method == Method::GET {
            allowed.extend(["GET", "HEAD"]);
        } else if route.method == Method::DELETE {
            allowed.push("DELETE");
        } else {
            allowed.push("POST");
        }
    }
    if allowed.is_empty() {
        Way::Nowhere
    } else {
        Way::WrongMethod(allowed)
    }
}

/// `Some` if the path is of this pattern, with what stands in the place of the braces.
fn fits<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let mut argument = None;
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        let part = parts.next()?;
        if expected.starts_with('{') {
            argument = Some(part).filter(|part| is_name(part));
            argument?;
        } else if part != expected {
            return None;
        }
    }
    parts.next().is_none().then_some(argument)
}

/// All names in paths are plain, so nothing is ever decoded.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=ARGUMENT_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_one_route() {
        for action in AdminAction::ALL {
            let purpose = Purpose::Act(action);
            let routes = ROUTES.iter().filter(|route| route.purpose == purpose).count();
            assert_eq!(routes, 1, "{action}");
        }
    }

    #[test]
    fn every_route_is_found_and_looks_are_gets() {
        for route in &ROUTES {
            let path = route.path.replace(['{', '}'], "");
            let Way::To { purpose, .. } = find(&route.method, &path) else {
                panic!("{path}");
            };
            assert_eq!(purpose, route.purpose);
            let looks = matches!(purpose, Purpose::Act(action) if action.only_looks());
            assert_eq!(route.method == Method::GET, looks);
        }
    }

    #[test]
    fn arguments_are_plain_names() {
        let killed = |path| find(&Method::DELETE, path);
        let to = Way::To {
            purpose: Purpose::Act(AdminAction::SessionsKill),
            argument: Some("s-01"),
        };
        assert_eq!(killed("/v1/sessions/s-01"), to);
        let long = format!("/v1/sessions/{}", "a".repeat(65));
        for path in [
            "/v1/sessions/",
            "/v1/sessions/s-01/",
            "/v1/sessions/s%2D01",
            "/v1/sessions/..",
            "/v1/sessions/a.b",
            "/v1/sessions/a b",
            "/v1/sessions/\u{e4}",
            "//v1/sessions/s-01",
            "/V1/sessions/s-01",
            &long,
        ] {
            assert_eq!(killed(path), Way::Nowhere, "{path}");
        }
    }

    #[test]
    fn other_methods_are_told_which_there_are() {
        let way = |method, path| find(&method, path);
        let get = ["GET", "HEAD"];
        assert_eq!(way(Method::PUT, "/v1/pools"), Way::WrongMethod(get.to_vec()));
        assert_eq!(
            way(Method::OPTIONS, "/v1/revocations"),
            Way::WrongMethod(vec!["GET", "HEAD", "POST"])
        );
        assert_eq!(way(Method::GET, "/v1/reload"), Way::WrongMethod(vec!["POST"]));
        let head = Way::To {
            purpose: Purpose::Act(AdminAction::PoolsList),
            argument: None,
        };
        assert_eq!(way(Method::HEAD, "/v1/pools"), head);
    }
}
