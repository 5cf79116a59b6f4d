//! Evidence for an audit, gathered from a journal in one pass with bounded memory.
//!
//! `gather` reads records and fills the `model`, which is the JSON form; `sections` puts it into words
//! and tables, which `html` and `csv` print. What the controls of SOC 2 ask for is in `control`.

pub mod bounded;
pub mod control;
pub mod csv;
pub mod html;
pub mod model;

mod gather;
mod retries;
mod sections;
mod tables;
mod transactions;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

pub use control::Control;
pub use gather::Gathering;
pub use model::{Chain, Report};
pub use sections::sections;
pub use tables::{Cell, Section, Table};

/// From when to when, and as of when.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    pub from: SystemTime,
    /// Before this.
    pub to: SystemTime,
    /// When the report is made.
    pub now: SystemTime,
}

impl Report {
    /// Leaves only what is evidence for these controls.
    pub fn only(mut self, controls: &[Control]) -> Self {
        let wanted = |section: &str| {
            let of = sections::controls_of(section);
            of.iter().any(|control| controls.contains(control))
        };
        self.policy = self.policy.filter(|_| wanted("policy"));
        self.access = self.access.filter(|_| wanted("access"));
        self.break_glass = self.break_glass.filter(|_| wanted("break_glass"));
        self.credentials = self.credentials.filter(|_| wanted("credentials"));
        self.refusals = self.refusals.filter(|_| wanted("refusals"));
        self.operators = self.operators.filter(|_| wanted("operators"));
        self.retries = self.retries.filter(|_| wanted("retries"));
        self.gaps = self.gaps.filter(|_| wanted("gaps"));
        self.controls.retain(|control| controls.contains(control));
        self
    }
}
