//! Which target and database a client means. Nothing is guessed: a name that is not declared leads
//! nowhere, and reads like a denial.

use std::collections::HashMap;

use crate::domain::target::{DatabaseName, TargetName};

/// A database as a listener offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub target: TargetName,
    pub database: DatabaseName,
}

/// The databases of one listener by the names that clients use: the database's own name or its
/// alias, and always `target/database`.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_name: HashMap<String, Destination>,
}

impl Directory {
    /// Offers a database under `alias`, or under its own name. Returns false if the name is taken,
    /// in which case nothing changes.
    pub fn offer(&mut self, destination: Destination, alias: Option<&str>) -> bool {
        let name = alias.unwrap_or_else(|| destination.database.as_str()).to_owned();
        let long = format!("{}/{}", destination.target, destination.database);
        if self.by_name.contains_key(&name) {
            return false;
        }
        self.by_name.insert(name, destination.clone());
        self.by_name.insert(long, destination);
        true
    }

    pub fn find(&self, name: &str) -> Option<&Destination> {
        self.by_name.get(name)
    }

    /// Everything that is offered of a target; a database is there under each of its names.
    pub fn of_target(&self, target: &str) -> impl Iterator<Item = &Destination> {
        self.by_name
            .values()
            .filter(move |it| it.target.as_str() == target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(target: &str, database: &str) -> Destination {
        Destination {
            target: target.into(),
            database: database.into(),
        }
    }

    #[test]
    fn names_are_unique_per_listener() {
        let mut directory = Directory::default();
        assert!(directory.offer(destination("a", "orders"), None));
        assert!(!directory.offer(destination("b", "orders"), None));
        assert!(directory.offer(destination("b", "orders"), Some("orders-eu")));
        assert_eq!(directory.find("orders").unwrap().target.as_str(), "a");
        assert_eq!(directory.find("orders-eu").unwrap().target.as_str(), "b");
        assert_eq!(directory.find("b/orders").unwrap().target.as_str(), "b");
        assert!(directory.find("other").is_none());
        assert!(directory.of_target("b").all(|it| it.target.as_str() == "b"));
        assert!(
            directory.of_target("b").next().is_some() && directory.of_target("orders-eu").next().is_none()
        );
    }
}
