//! What is known of the message group that is under way: from one ReadyForQuery to the next.

/// A COPY FROM STDIN in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Copy {
    #[default]
    None,
    /// Executed; nothing may be put behind it until its data ended.
    Awaited,
    Ended,
}

/// The question for the transaction id as a function call, which was sent in place of the group's Sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Called {
    #[default]
    Not,
    InBlock,
    /// Outside of a block: it ends the transaction as a Sync does, on servers that see it so.
    ToEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Were any messages sent?
    pub(super) begun: bool,
    /// Did the server report an error? It skips the rest.
    pub(super) failed: bool,
    pub(super) copy: Copy,
    pub(super) called: Called,
    /// In a block: something ran behind which a probe may take its snapshot.
    pub(super) probe_at_sync: bool,
    /// The group commits without a further word, so its end waits for the outcome's record.
    pub(super) hold_ready: bool,
    /// What commits was sent: if the server is lost now, the outcome is in doubt.
    pub(super) commit_sent: bool,
    /// What ends a transaction, or may end one, was executed, and its completion has not come yet.
    pub(super) ending: bool,
    /// It ends what no BEGIN began.
    pub(super) unbegun: bool,
}

impl Group {
    pub(super) const fn is_empty(&self) -> bool {
        !self.begun
    }
}
