//! Who may log in, and what is said to who may not.

use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use gatepost::wire::tds::handshake::{Arrival, Presented};
use gatepost::wire::tds::login_ack::{LoginAnswer, put_login_ack, put_login_answer};
use gatepost::wire::tds::packet::PACKET_BYTES;
use gatepost::wire::tds::reply::{self, COLLATION, Said};

use super::fault::Fault;
use super::model::{LoginSeen, Model, PrincipalKind, Seen};
use super::out::SERVER_NAME;
use super::session::Who;

/// What is granted to who asks for nothing.
const PACKET_BYTES_USUAL: usize = 4096;

pub(crate) fn seen(presented: &Presented) -> LoginSeen {
    let login = &presented.login;
    LoginSeen {
        user: login.user.clone(),
        database: login.database.clone(),
        application: login.application.clone(),
        host: login.host.clone(),
        server: login.server.clone(),
        language: login.language.clone(),
        version: login.version.0,
        packet_bytes: login.packet_bytes,
        flags: [
            login.flags_one,
            login.flags_two,
            login.type_flags,
            login.flags_three,
        ],
        by_token: presented.arrival != Arrival::Password,
        tls: presented.beginning.tls,
        refused: None,
    }
}

fn failed(user: &str) -> Fault {
    Fault::new(18456, 14, format!("Login failed for user '{user}'."))
}

/// Whose login it is, by its secret, and its own database.
fn identified(model: &Model, presented: &Presented) -> Result<(String, String), Fault> {
    let asked = &presented.login;
    let secret = String::from_utf8_lossy(presented.token.expose());
    let by_password = presented.arrival == Arrival::Password;
    let name = if by_password {
        asked.user.clone()
    } else {
        let known = model.tokens.iter().find(|(token, _)| *token.expose() == secret);
        let known = known.map(|(_, login)| login.clone());
        known.ok_or_else(|| failed("<token-identified principal>"))?
    };
    let wanted = asked.database.clone();
    let there = model
        .database(&wanted)
        .and_then(|database| database.principals.get(&name.to_lowercase()));
    // Who is known to the database alone comes in one way only.
    let good = match there.map(|user| &user.kind) {
        Some(PrincipalKind::Contained(password)) => by_password && *password.expose() == secret,
        Some(PrincipalKind::External) => !by_password,
        Some(PrincipalKind::User { .. } | PrincipalKind::Role) | None => {
            return logged_in(model, &name, by_password.then_some(&*secret));
        }
    };
    if good {
        Ok((name, wanted))
    } else {
        Err(failed(&name))
    }
}

/// A login of the server; without a password it came with a token.
fn logged_in(model: &Model, name: &str, password: Option<&str>) -> Result<(String, String), Fault> {
    let login = model.logins.get(&name.to_lowercase());
    let login = login.ok_or_else(|| failed(name))?;
    if password.is_some_and(|password| login.password.expose() != password) {
        return Err(failed(name));
    }
    if login.disabled {
        let text = format!("Login failed for user '{name}'. Reason: The account is disabled.");
        return Err(Fault::new(18470, 14, text));
    }
    Ok((login.name.clone(), login.database.clone()))
}

/// The login, and the database that it comes to.
pub(crate) fn admit(model: &mut Model, presented: &Presented) -> Result<Who, Fault> {
    let asked = &presented.login;
    if let Some(number) = model.orders.refuse_logins {
        let text = format!(
            "Database '{}' on server is not currently available. Please retry later.",
            asked.database
        );
        return Err(Fault::new(number, 20, text));
    }
    let (name, home) = identified(model, presented)?;
    let wanted = asked.database.clone();
    let database = if wanted.is_empty() { home } else { wanted };
    let is_sysadmin = model.is_server_member(&name, "sysadmin");
    let entered = model
        .database(&database)
        .filter(|there| there.user_of(is_sysadmin, &name).is_some());
    let Some(entered) = entered else {
        let text = format!("Cannot open database \"{database}\" requested by the login. The login failed.");
        return Err(Fault::new(4060, 11, text));
    };
    let database = entered.name.clone();
    let spid = model.free_spid();
    let session = Seen {
        login: name.clone(),
        database: database.clone(),
        program: asked.application.clone(),
        host: asked.host.clone(),
        open_transactions: 0,
        killed: false,
        kill: std::sync::Arc::default(),
    };
    model.sessions.insert(spid, session);
    let asked_bytes = usize::try_from(asked.packet_bytes).unwrap_or_default();
    Ok(Who {
        spid,
        login: name,
        database,
        program: asked.application.clone(),
        host: asked.host.clone(),
        packet_bytes: match asked_bytes {
            0 => PACKET_BYTES_USUAL,
            bytes => bytes.clamp(512, PACKET_BYTES),
        },
    })
}

/// The payload that welcomes.
pub(crate) fn welcome(presented: &Presented, who: &Who, route: Option<&(String, u16)>) -> Vec<u8> {
    let mut payload = Vec::new();
    let answer = LoginAnswer {
        server: SERVER_NAME,
        database: &who.database,
        language: "us_english",
        collation: COLLATION,
        packet_bytes: who.packet_bytes,
        packet_bytes_before: PACKET_BYTES_USUAL,
        version: presented.login.version.answered(),
        program: "Microsoft SQL Server",
        program_version: [16, 0, 0x0f, 0xa0],
        acknowledge: presented.acknowledge,
    };
    match route {
        None => put_login_answer(&mut payload, &answer),
        Some((host, port)) => {
            put_login_ack(&mut payload, &answer);
            reply::put_routing(&mut payload, *port, host);
            gatepost::wire::tds::login_ack::put_feature_ack(&mut payload, answer.acknowledge);
            reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::FINAL, 0, 0);
        }
    }
    payload
}

/// The payload that refuses.
pub(crate) fn refusal(fault: &Fault) -> Vec<u8> {
    let mut payload = Vec::new();
    let said = Said {
        number: fault.number,
        state: fault.state,
        class: fault.class,
        text: &fault.text,
        server: SERVER_NAME,
        procedure: "",
        line: 1,
    };
    reply::put_error(&mut payload, &said);
    reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::ERROR, 0, 0);
    payload
}
