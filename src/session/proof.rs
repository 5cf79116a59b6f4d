//! Who somebody is, by what stood in the password field: an access token, or a ticket that was issued
//! for one. Both end in the same `Identity`; a ticket has yet to be held against the destination.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::record::{Facts, IdentityFacts};
use crate::domain::identity::Identity;
use crate::domain::ids::TicketId;
use crate::domain::refusal::{Reason, RefusalCode, Refuse};
use crate::domain::secret::Secret;
use crate::identity::ticket::{FoundTicket, begins_like_a_ticket};
use crate::identity::{TicketError, TokenError};
use crate::session::Shared;
use crate::session::directory::Destination;
use crate::session::snapshot::Snapshot;

/// Somebody who is known. The identity counts once it has been [redeemed](Proof::redeem).
#[derive(Debug)]
pub(super) enum Proof {
    Token(Arc<Identity>),
    Ticket(FoundTicket),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProofError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Ticket(#[from] TicketError),
}

impl Refuse for ProofError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        match self {
            Self::Token(error) => error.refusal(),
            Self::Ticket(error) => error.refusal(),
        }
    }
}

/// Takes what was presented for what it is. Notes in the facts who it is, also when a ticket is
/// refused that was issued: whoever tries it elsewhere is then on record beside its owner.
pub(super) async fn verify(
    shared: &Shared,
    snapshot: &Snapshot,
    presented: &Secret<Vec<u8>>,
    client: IpAddr,
    facts: &mut Facts,
    now: SystemTime,
) -> Result<Proof, ProofError> {
    if !begins_like_a_ticket(presented.expose()) {
        let identity = snapshot.verifier.verify(presented, now).await?;
        facts.identity = Some(identity.as_ref().into());
        return Ok(Proof::Token(identity));
    }
    let found = shared.tickets.find(presented, client).map_err(|(error, whose)| {
        facts.identity = whose.map(|whose| with_ticket(&whose, error.id()));
        error
    })?;
    let id = found.id();
    facts.identity = Some(with_ticket(found.identity(), Some(id)));
    // Its token was believed when it was issued; a provider may have been taken away since.
    if !snapshot.verifier.still_accepts(found.identity()) {
        return Err(TicketError::OtherProvider { id }.into());
    }
    Ok(Proof::Ticket(found))
}

fn with_ticket(identity: &Identity, ticket_id: Option<TicketId>) -> IdentityFacts {
    IdentityFacts {
        ticket_id,
        ..IdentityFacts::from(identity)
    }
}

impl Proof {
    /// Whose it would be: enough to refuse somebody, not to let them in.
    pub(super) const fn claimed(&self) -> &Arc<Identity> {
        match self {
            Self::Token(identity) => identity,
            Self::Ticket(found) => found.identity(),
        }
    }

    /// The identity, for this destination and no other. A ticket for one session is used up by it.
    pub(super) fn redeem(
        self,
        shared: &Shared,
        destination: Option<&Destination>,
    ) -> Result<Arc<Identity>, TicketError> {
        match self {
            Self::Token(identity) => Ok(identity),
            Self::Ticket(found) => {
                let names = destination.map(|it| (&it.target, &it.database));
                shared.tickets.redeem(found, names)
            }
        }
    }
}
