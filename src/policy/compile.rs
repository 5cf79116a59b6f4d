//! From what was written to what was meant: names resolved, everything checked, every mistake at
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cel::Env;

use crate::domain::ids::ProviderName;
use crate::domain::mistake::{Mistake, Place};
use crate::domain::outline::PolicyFile;
use crate::domain::target::{DatabaseName, Engine, TargetName};

use super::admin::AdminRule;
use super::cases::Case;
use super::coverage;
use super::declaration::RoleDeclaration;
use super::document::Document;
use super::reading::{Notes, Read};
use super::resolve::{Names, admin, cases, roles, rules};
use super::rule::Rule;
use super::tree::{Page, parse};

/// One policy file as read by the caller.
#[derive(Clone, Debug)]
pub struct SourceText {
    pub path: PathBuf,
    pub text: String,
}

/// What gatepost.yaml declares, so that names in policies can be checked.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub providers: BTreeSet<ProviderName>,
    pub targets: BTreeMap<TargetName, TargetFacts>,
}

#[derive(Clone, Debug)]
pub struct TargetFacts {
    pub engine: Engine,
    /// Names as the server knows them, not aliases.
    pub databases: BTreeSet<DatabaseName>,
}

#[derive(Debug)]
pub struct Loaded {
    pub policy: Policy,
    /// Overlaps: not wrong, but worth a look.
    pub warnings: Vec<Mistake>,
}

/// A checked policy. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Policy {
    version: Arc<str>,
    files: Vec<PolicyFile>,
    roles: Vec<RoleDeclaration>,
    rules: Vec<Rule>,
    admin: Vec<AdminRule>,
    cases: Vec<Case>,
}

impl Policy {
    /// SHA-256 in hex over the sources.
    pub const fn version(&self) -> &Arc<str> {
        &self.version
    }

    pub(super) fn files(&self) -> &[PolicyFile] {
        &self.files
    }

    pub fn roles(&self) -> &[RoleDeclaration] {
        &self.roles
    }

    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    pub fn admin_rule_count(&self) -> usize {
        self.admin.len()
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(super) fn admin_rules(&self) -> &[AdminRule] {
        &self.admin
    }
}

/// One file on its way from text to meaning.
pub(super) struct Sheet<'a> {
    pub(super) notes: Notes<'a>,
    pub(super) document: Option<Document>,
}

/// Reads and checks all files of a policy: files by name, rules by place.
pub fn load(sources: &[SourceText], around: &Surroundings) -> Result<Loaded, Vec<Mistake>> {
    let mut ordered: Vec<&SourceText> = sources.iter().collect();
    ordered.sort_by(|one, other| one.path.cmp(&other.path));
    let mut sheets: Vec<Sheet<'_>> = ordered.iter().map(|source| read(source)).collect();
    let well_formed = sheets.iter().all(|sheet| sheet.notes.mistakes.is_empty());

    let names = Names::gather(around, &mut sheets);
    let env = Arc::new(Env::stdlib());
    let (mut all_roles, mut all_rules) = (Vec::new(), Vec::new());
    let (mut all_admin, mut all_cases) = (Vec::new(), Vec::new());
    for sheet in &mut sheets {
        let Some(document) = sheet.document.take() else {
            continue;
        };
        all_roles.extend(roles(&document, &names, &mut sheet.notes));
        all_rules.extend(rules(&document, &names, &env, &mut sheet.notes));
        all_admin.extend(admin(&document, &names, &env, &mut sheet.notes));
        all_cases.extend(cases(&document, &names, &mut sheet.notes));
    }

    let mut mistakes: Vec<_> = sheets
        .into_iter()
        .flat_map(|sheet| sheet.notes.mistakes)
        .collect();
    if well_formed {
        // A rule that lost a key to a mistake looks wider than it is, and would be blamed for it.
        mistakes.extend(coverage::dead_rules(&all_rules));
        mistakes.extend(coverage::dead_admin_rules(&all_rules, &all_admin));
    }
    if !mistakes.is_empty() {
        mistakes.sort_by(|one, other| one.place.cmp(&other.place));
        return Err(mistakes);
    }
    let warnings = coverage::overlaps(&all_rules);
    let policy = Policy {
        version: version(&ordered),
        files: ordered.iter().map(|source| file(source)).collect(),
        roles: all_roles,
        rules: all_rules,
        admin: all_admin,
        cases: all_cases,
    };
    Ok(Loaded { policy, warnings })
}

fn read(source: &SourceText) -> Sheet<'_> {
    let page = Page {
        path: &source.path,
        text: &source.text,
    };
    let mut notes = Notes {
        page,
        mistakes: Vec::new(),
    };
    let document = match parse(page) {
        Ok(tree) => Document::read(&tree, &mut notes),
        Err(mistake) => {
            notes.mistakes.push(mistake);
            None
        }
    };
    Sheet { notes, document }
}

/// Names are part of it, because they decide the order; lengths keep two files from reading as one.
fn version(ordered: &[&SourceText]) -> Arc<str> {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for source in ordered {
        let name = source.path.file_name().unwrap_or_default();
        for part in [name.as_encoded_bytes(), source.text.as_bytes()] {
            digest.update(&part.len().to_be_bytes());
            digest.update(part);
        }
    }
    Arc::from(hex(digest.finish().as_ref()))
}

/// The file by itself, so that a reviewer can find it in the repository that it came from.
fn file(source: &SourceText) -> PolicyFile {
    let name = source.path.file_name().unwrap_or_default();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, source.text.as_bytes());
    PolicyFile {
        name: name.to_string_lossy().into_owned(),
        sha256: hex(digest.as_ref()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A place as people write it.
pub(super) fn shown(place: &Place) -> String {
    format!("{}:{}:{}", place.file.display(), place.line, place.column)
}
