//! Which target and database a client means. Nothing is guessed: a name that is not declared leads
//! nowhere, and reads like a denial.

use std::collections::HashMap;

use crate::domain::target::{DatabaseName, Engine, TargetName};

/// A database as a listener offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub target: TargetName,
    pub database: DatabaseName,
}

/// The databases by the names that clients use: the database's own name or its alias, and always
/// `target/database`. A listener offers those of the engine whose protocol it speaks.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_name: HashMap<Engine, HashMap<String, Destination>>,
}

impl Directory {
    /// Offers a database under `alias`, or under its own name. Returns false if the name is taken,
    /// in which case nothing changes.
    pub fn offer(&mut self, engine: Engine, destination: Destination, alias: Option<&str>) -> bool {
        let name = alias.unwrap_or_else(|| destination.database.as_str()).to_owned();
        let long = format!("{}/{}", destination.target, destination.database);
        let names = self.by_name.entry(engine).or_default();
        if names.contains_key(&name) {
            return false;
        }
        names.insert(name, destination.clone());
        names.insert(long, destination);
        true
    }

    pub fn find(&self, engine: Engine, name: &str) -> Option<&Destination> {
        self.by_name.get(&engine)?.get(name)
    }

    /// The same whatever the listener; `None` also where the name means something at several.
    pub fn find_at_any(&self, name: &str) -> Option<&Destination> {
        let mut found = self.by_name.values().filter_map(|names| names.get(name));
        found.next().filter(|_| found.next().is_none())
    }

    /// Everything that is offered of a target; a database is there under each of its names.
    pub fn of_target(&self, target: &str) -> impl Iterator<Item = &Destination> {
        self.by_name
            .values()
            .flat_map(HashMap::values)
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
        assert!(directory.offer(Engine::Postgres, destination("a", "orders"), None));
        assert!(!directory.offer(Engine::Postgres, destination("b", "orders"), None));
        assert!(directory.offer(Engine::Postgres, destination("b", "orders"), Some("orders-eu")));
        assert_eq!(
            directory
                .find(Engine::Postgres, "orders")
                .unwrap()
                .target
                .as_str(),
            "a"
        );
        assert_eq!(
            directory
                .find(Engine::Postgres, "orders-eu")
                .unwrap()
                .target
                .as_str(),
            "b"
        );
        assert_eq!(
            directory
                .find(Engine::Postgres, "b/orders")
                .unwrap()
                .target
                .as_str(),
            "b"
        );
        assert!(directory.find(Engine::Postgres, "other").is_none());
        // The other protocol's listener has names of its own.
        assert!(directory.find(Engine::SqlServer, "orders").is_none());
        assert!(directory.offer(Engine::SqlServer, destination("c", "orders"), None));
        assert!(directory.of_target("b").all(|it| it.target.as_str() == "b"));
        assert!(
            directory.of_target("b").next().is_some() && directory.of_target("orders-eu").next().is_none()
        );
    }
}
