//! One rule as meant.

use std::sync::Arc;

use crate::domain::ids::{RoleName, RuleName};
use crate::domain::mistake::{Mistake, Place};

use super::decision::Terms;
use super::matcher::Matcher;

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: RuleName,
    pub(super) matcher: Matcher,
    pub(super) effect: Effect,
    /// Where the name stands, and the line as written.
    pub(super) place: Place,
    pub(super) excerpt: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Effect {
    Grant { role: RoleName, terms: Terms },
    Deny(Arc<str>),
}

impl Rule {
    pub(super) fn mistake(&self, message: String) -> Mistake {
        Mistake {
            place: Some(self.place.clone()),
            message,
            excerpt: self.excerpt.clone(),
        }
    }
}
