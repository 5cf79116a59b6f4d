//! What a reviewer needs to know of a policy: which files it was made of, which roles there are, and
//! who may have which. Bounded, because it becomes one record of the journal.

use serde::Serialize;

use crate::domain::ids::{RoleName, RuleName};
use crate::domain::parameters::ParameterRule;
use crate::domain::target::{DatabaseName, TargetName};

/// Files in an outline; an installation has a handful.
pub const OUTLINE_FILES_MAX: usize = 64;
/// Roles in an outline, and rules of each kind. With the texts below, an outline stays under half
/// of the largest record even if every character of it has to be escaped.
pub const OUTLINE_ENTRIES_MAX: usize = 128;
/// Bytes of one text of an outline.
const TEXT_BYTES_MAX: usize = 512;

/// The outline of one version of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyOutline {
    pub files: Vec<PolicyFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<OutlinedRole>,
    /// In the order in which they decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permits: Vec<OutlinedRule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OutlinedOperator>,
    /// Files, roles and rules that are not in here.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// One file of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyFile {
    pub name: String,
    /// SHA-256 of the file in hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
}

/// A role, and what policy declares that it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlinedRole {
    pub name: RoleName,
    pub target: TargetName,
    pub database: DatabaseName,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// Privileges and objects.
    pub grants: String,
}

/// A rule: whom it speaks of, and what they get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlinedRule {
    pub rule: RuleName,
    /// Every key with its values, in the words of the policy.
    pub who: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// Why they get nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<String>,
    /// Are the values of their statements on record?
    #[serde(skip_serializing_if = "ParameterRule::is_absent")]
    pub parameters: ParameterRule,
}

/// An `admin` rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlinedOperator {
    pub rule: RuleName,
    pub who: String,
    pub allow: Vec<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// `text`, cut to what an outline may hold of one.
pub fn outlined(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// The first `most` of `all`; the number of the others is added to `omitted`.
pub fn first<T>(all: impl ExactSizeIterator<Item = T>, most: usize, omitted: &mut usize) -> Vec<T> {
    *omitted += all.len().saturating_sub(most);
    all.take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_are_cut_and_the_rest_is_counted() {
        let text = outlined("ä".repeat(TEXT_BYTES_MAX));
        assert_eq!(text, format!("{}…", "ä".repeat(TEXT_BYTES_MAX / 2)));
        assert_eq!(outlined("short".to_owned()), "short");
        let mut omitted = 1;
        assert_eq!(first([1, 2, 3].into_iter(), 2, &mut omitted), [1, 2]);
        assert_eq!(omitted, 2);
    }
}
