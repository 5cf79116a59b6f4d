//! Logins, users, roles, grants, tables, procedures: each undone with its transaction.

use std::sync::Arc;

use gatepost::domain::Secret;

use super::fault::Fault;
use super::model::{Database, Granted, Model, Principal, PrincipalKind, Procedure, Schema, forget};
use super::session::Session;
use super::store::Table;
use super::syntax::{ColumnDefinition, Definition, LoginChange, Name};

impl Definition {
    pub(crate) const fn has_secret(&self) -> bool {
        matches!(
            self,
            Self::CreateLogin { .. }
                | Self::AlterLogin(..)
                | Self::CreateUser { .. }
                | Self::AlterUser { .. }
        )
    }
}

fn not_allowed() -> Fault {
    Fault::new(15247, 16, "User does not have permission to perform this action.")
}

fn there_already(name: &str) -> Fault {
    let text = format!("User, group, or role '{name}' already exists in the current database.");
    Fault::new(15023, 16, text)
}

impl Session {
    pub(crate) fn define(&mut self, definition: &Definition) -> Result<(), Fault> {
        match definition {
            Definition::CreateDatabase(_) | Definition::DropDatabase(_) => self.define_database(definition),
            Definition::CreateLogin { .. } | Definition::AlterLogin(..) | Definition::DropLogin(_) => {
                self.define_login(definition)
            }
            Definition::CreateTable { name, columns, keys } => self.create_table(name, columns, keys),
            Definition::CreateIndex { .. }
            | Definition::DropTable { .. }
            | Definition::CreateProcedure { .. }
            | Definition::DropProcedure(_) => self.define_object(definition),
            Definition::Member {
                of_server: true,
                role,
                member,
                adds,
            } => self.server_member(role, member, *adds),
            Definition::Grant {
                grants,
                permissions,
                on,
                to,
            } => self.grant(*grants, permissions, on.as_ref(), to),
            _ => self.define_principal(definition),
        }
    }

    fn server_right(&self, model: &Model, permission: &str) -> Result<(), Fault> {
        if model.has_server_permission(&self.who.login, permission) {
            Ok(())
        } else {
            Err(not_allowed())
        }
    }

    fn define_database(&mut self, definition: &Definition) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        match definition {
            Definition::CreateDatabase(name) => {
                self.server_right(&model, "CREATE ANY DATABASE")?;
                if model.database(name).is_some() {
                    let text = format!("Database '{name}' already exists. Choose a different database name.");
                    return Err(Fault::new(1801, 16, text));
                }
                model.add_database(name);
            }
            Definition::DropDatabase(name) => {
                self.server_right(&model, "CREATE ANY DATABASE")?;
                if model
                    .sessions
                    .values()
                    .any(|seen| seen.database.eq_ignore_ascii_case(name) && !seen.killed)
                {
                    let text = format!("Cannot drop database \"{name}\" because it is currently in use.");
                    return Err(Fault::new(3702, 16, text));
                }
                model.databases.remove(&name.to_lowercase());
            }
            _ => {}
        }
        Ok(())
    }

    fn define_login(&mut self, definition: &Definition) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        match definition {
            Definition::CreateLogin {
                name,
                password,
                database,
            } => {
                self.server_right(&model, "ALTER ANY LOGIN")?;
                let key = name.to_lowercase();
                if model.logins.contains_key(&key) {
                    return Err(Fault::new(
                        15025,
                        16,
                        format!("The server principal '{name}' already exists."),
                    ));
                }
                model.add_login(name, password, database.as_deref().unwrap_or("master"));
                self.writes().changed(move |model| {
                    model.logins.remove(&key);
                });
            }
            Definition::AlterLogin(name, change) => {
                let key = name.to_lowercase();
                let may = model.has_server_permission(&self.who.login, "ALTER ANY LOGIN");
                let Some(login) = model.logins.get_mut(&key).filter(|_| may) else {
                    return Err(Fault::no_principal("login", name, "alter"));
                };
                let old = login.clone();
                match change {
                    LoginChange::Enabled(enabled) => login.disabled = !enabled,
                    LoginChange::Password(password) => login.password = Secret::new(password.clone()),
                    LoginChange::Database(database) => login.database.clone_from(database),
                }
                self.writes().changed(move |model| {
                    model.logins.insert(key, old);
                });
            }
            Definition::DropLogin(name) => {
                let key = name.to_lowercase();
                let may = model.has_server_permission(&self.who.login, "ALTER ANY LOGIN");
                if !may || !model.logins.contains_key(&key) {
                    return Err(Fault::no_principal("login", name, "drop"));
                }
                let logged_in =
                    |seen: &super::model::Seen| seen.login.eq_ignore_ascii_case(name) && !seen.killed;
                if model.sessions.values().any(logged_in) {
                    let text = format!("Could not drop login '{name}' as the user is currently logged in.");
                    return Err(Fault::new(15434, 16, text));
                }
                model.server_members.retain(|(_, member)| *member != key);
                model.server_grants.retain(|(to, _)| *to != key);
                if let Some(old) = model.logins.remove(&key) {
                    self.writes().changed(move |model| {
                        model.logins.insert(key, old);
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn server_member(&mut self, role: &str, member: &str, adds: bool) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        self.server_right(&model, "ALTER ANY SERVER ROLE")?;
        let pair = (role.to_lowercase(), member.to_lowercase());
        if !model.logins.contains_key(&pair.1) {
            return Err(Fault::no_principal("login", member, "add"));
        }
        let changed = if adds {
            model.server_members.insert(pair.clone())
        } else {
            model.server_members.remove(&pair)
        };
        if changed {
            self.writes().changed(move |model| {
                if adds {
                    model.server_members.remove(&pair);
                } else {
                    model.server_members.insert(pair);
                }
            });
        }
        Ok(())
    }

    /// May the session's user do this in its database, whatever it is done to?
    fn right(&self, model: &Model, permission: &str, class: &str, on: &str) -> bool {
        let database = model.database(&self.database);
        database.is_some_and(|database| database.may(&self.user, permission, class, on))
    }

    fn define_principal(&mut self, definition: &Definition) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        let may_users = self.right(&model, "ALTER ANY USER", "database", "");
        let may_roles = self.right(&model, "ALTER ANY ROLE", "database", "");
        let id = model.id();
        if let Definition::CreateUser {
            login: Some(login), ..
        } = definition
            && !model.logins.contains_key(&login.to_lowercase())
        {
            let text = format!("'{login}' is not a valid login or you do not have permission.");
            return Err(Fault::new(15007, 16, text));
        }
        if let Definition::Member { role, .. } = definition
            && !may_roles
            && !self.right(&model, "ALTER", "role", &role.to_lowercase())
        {
            return Err(Fault::no_principal("role", role, "alter"));
        }
        let name = self.database.clone();
        let Some(database) = model.database_mut(&name) else {
            return Ok(());
        };
        match definition {
            Definition::CreateUser { .. } | Definition::AlterUser { .. } if !may_users => {
                return Err(not_allowed());
            }
            Definition::DropUser { name, .. } if !may_users => {
                return Err(Fault::no_principal("user", name, "drop"));
            }
            Definition::CreateRole(_) | Definition::DropRole(_) | Definition::CreateSchema { .. }
                if !may_roles =>
            {
                return Err(not_allowed());
            }
            _ => {}
        }
        // Principals, members and grants of one database are taken back together.
        let old = (
            database.principals.clone(),
            database.members.clone(),
            database.grants.clone(),
        );
        changed_principal(database, definition, id)?;
        self.writes().changed(move |model| {
            if let Some(database) = model.database_mut(&name) {
                (database.principals, database.members, database.grants) = old;
            }
        });
        Ok(())
    }

    fn grant(
        &mut self,
        grants: bool,
        permissions: &[String],
        on: Option<&(String, Name)>,
        to: &[String],
    ) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        let of_server = [
            "ALTER ANY LOGIN",
            "ALTER ANY CONNECTION",
            "VIEW SERVER STATE",
            "CREATE ANY DATABASE",
        ];
        let of_server = |permission: &String| {
            of_server.contains(&permission.as_str()) || permission == "VIEW SERVER PERFORMANCE STATE"
        };
        let name = self.database.clone();
        for grantee in to.iter().map(|grantee| grantee.to_lowercase()) {
            for permission in permissions {
                if on.is_none() && of_server(permission) {
                    self.server_right(&model, "CONTROL SERVER")?;
                    let granted = (grantee.clone(), permission.clone());
                    let _ = if grants {
                        model.server_grants.insert(granted)
                    } else {
                        model.server_grants.remove(&granted)
                    };
                    continue;
                }
                if !self.right(&model, "CONTROL", "database", "") {
                    return Err(not_allowed());
                }
                let Some(database) = model.database_mut(&name) else {
                    continue;
                };
                if !database.principals.contains_key(&grantee) {
                    let text = format!(
                        "Cannot find the user '{grantee}', because it does not exist or you do not have permission."
                    );
                    return Err(Fault::new(15151, 16, text));
                }
                let (class, on) = match on {
                    None => ("database".to_owned(), String::new()),
                    Some((class, name)) if class == "object" => {
                        let key = name.key();
                        if key != super::catalogue::NUMBERS
                            && !database.tables.contains_key(&key)
                            && !database.procedures.contains_key(&key)
                        {
                            let text = format!(
                                "Cannot find the object '{}', because it does not exist or you do not have permission.",
                                name.shown
                            );
                            return Err(Fault::new(15151, 16, text));
                        }
                        (class.clone(), key)
                    }
                    Some((class, name)) => (class.clone(), name.object.clone()),
                };
                let granted = Granted {
                    to: grantee.clone(),
                    permission: permission.clone(),
                    class,
                    on,
                };
                let _ = if grants {
                    database.grants.insert(granted)
                } else {
                    database.grants.remove(&granted)
                };
            }
        }
        Ok(())
    }

    pub(crate) fn create_table(
        &mut self,
        name: &Name,
        columns: &[ColumnDefinition],
        keys: &[(String, Vec<String>)],
    ) -> Result<(), Fault> {
        let place = self.place(name);
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        if !name.is_temporary() && !self.right(&model, "CREATE TABLE", "database", "") {
            let text = format!("CREATE TABLE permission denied in database '{}'.", self.database);
            return Err(Fault::new(262, 14, text));
        }
        let id = model.id();
        let shown = if name.is_temporary() {
            name.object.clone()
        } else {
            name.key()
        };
        let mut table = Table::new(id, &shown, columns.to_vec());
        for (key, columns) in keys {
            table.add_key(key, columns)?;
        }
        let Some(database) = model.databases.get_mut(&place.0) else {
            return Err(Fault::new(
                911,
                16,
                format!("Database '{}' does not exist.", place.0),
            ));
        };
        if !name.is_temporary() && !database.schemas.contains_key(name.schema()) {
            let text = format!(
                "The specified schema name \"{}\" either does not exist.",
                name.schema()
            );
            return Err(Fault::new(2760, 16, text));
        }
        if database.tables.contains_key(&place.1) {
            let text = format!(
                "There is already an object named '{}' in the database.",
                name.object
            );
            return Err(Fault::new(2714, 16, text).aborting());
        }
        database.tables.insert(place.1.clone(), table);
        self.writes().changed(move |model| {
            if let Some(database) = model.databases.get_mut(&place.0) {
                database.tables.remove(&place.1);
            }
        });
        Ok(())
    }

    fn define_object(&mut self, definition: &Definition) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        let may = self.right(&model, "CREATE TABLE", "database", "");
        let id = model.id();
        let (name, needs) = match definition {
            Definition::CreateIndex { table, .. } => (table, true),
            Definition::DropTable { name, .. } => (name, !name.is_temporary()),
            Definition::CreateProcedure { name, .. } | Definition::DropProcedure(name) => (name, true),
            _ => return Ok(()),
        };
        if needs && !may {
            return Err(not_allowed());
        }
        let place = self.place(name);
        let Some(database) = model.databases.get_mut(&place.0) else {
            return Ok(());
        };
        match definition {
            Definition::CreateIndex {
                name: index,
                columns,
                unique,
                ..
            } => {
                let table = database.tables.get_mut(&place.1);
                let table = table.ok_or_else(|| Fault::no_object(&name.shown))?;
                if *unique {
                    table.add_key(index, columns)?;
                }
            }
            Definition::DropTable { if_exists, .. } => match database.tables.remove(&place.1) {
                Some(old) => self.writes().changed(move |model| {
                    if let Some(database) = model.databases.get_mut(&place.0) {
                        database.tables.insert(place.1, old);
                    }
                }),
                None if *if_exists => {}
                None => {
                    let text = format!(
                        "Cannot drop the table '{}', because it does not exist or you do not have permission.",
                        name.shown
                    );
                    return Err(Fault::new(3701, 11, text));
                }
            },
            _ => define_procedure(database, definition, &place.1, id)?,
        }
        Ok(())
    }
}

fn define_procedure(
    database: &mut Database,
    definition: &Definition,
    key: &str,
    id: i32,
) -> Result<(), Fault> {
    match definition {
        Definition::CreateProcedure {
            name,
            parameters,
            body,
            replaces,
        } => {
            if database.procedures.contains_key(key) && !replaces {
                let text = format!(
                    "There is already an object named '{}' in the database.",
                    name.object
                );
                return Err(Fault::new(2714, 16, text));
            }
            let procedure = Procedure {
                id,
                name: name.key(),
                parameters: parameters.clone(),
                body: Arc::new(body.clone()),
            };
            database.procedures.insert(key.to_owned(), procedure);
        }
        Definition::DropProcedure(_) => {
            database.procedures.remove(key);
        }
        _ => {}
    }
    Ok(())
}

fn principal(id: i32, name: &str, kind: PrincipalKind, schema: &str, owner: Option<&str>) -> Principal {
    Principal {
        id,
        name: name.to_owned(),
        kind,
        schema: schema.to_owned(),
        owner: owner.map(str::to_owned),
    }
}

fn changed_principal(database: &mut Database, definition: &Definition, id: i32) -> Result<(), Fault> {
    match definition {
        Definition::CreateUser {
            name,
            login,
            password,
            schema,
        } => {
            let key = name.to_lowercase();
            if database.principals.contains_key(&key) {
                return Err(there_already(name));
            }
            let kind = match (password, login) {
                (Some(password), _) => PrincipalKind::Contained(Secret::new(password.clone())),
                (None, Some(_)) => PrincipalKind::User { login: login.clone() },
                (None, None) => PrincipalKind::External,
            };
            let schema = schema.as_deref().unwrap_or("dbo");
            database
                .principals
                .insert(key, principal(id, name, kind, schema, None));
        }
        Definition::AlterUser {
            name,
            password,
            schema,
        } => {
            let Some(user) = database.principals.get_mut(&name.to_lowercase()) else {
                return Err(Fault::no_principal("user", name, "alter"));
            };
            if let Some(password) = password {
                user.kind = PrincipalKind::Contained(Secret::new(password.clone()));
            }
            if let Some(schema) = schema {
                user.schema.clone_from(schema);
            }
        }
        Definition::DropUser { name, if_exists } => {
            let key = name.to_lowercase();
            if database.schemas.values().any(|schema| schema.owner == key) {
                let text = "The database principal owns a schema in the database, and cannot be dropped.";
                return Err(Fault::new(15138, 16, text));
            }
            if database.principals.remove(&key).is_none() && !if_exists {
                return Err(Fault::no_principal("user", name, "drop"));
            }
            forget(database, &key);
        }
        _ => changed_role(database, definition, id)?,
    }
    Ok(())
}

fn changed_role(database: &mut Database, definition: &Definition, id: i32) -> Result<(), Fault> {
    match definition {
        Definition::CreateRole(name) => {
            let key = name.to_lowercase();
            if database.principals.contains_key(&key) {
                return Err(there_already(name));
            }
            let role = principal(id, name, PrincipalKind::Role, "", Some("dbo"));
            database.principals.insert(key, role);
        }
        Definition::DropRole(name) => {
            let key = name.to_lowercase();
            if database.principals.remove(&key).is_none() {
                return Err(Fault::no_principal("role", name, "drop"));
            }
            forget(database, &key);
        }
        Definition::Member {
            role, member, adds, ..
        } => {
            let pair = (role.to_lowercase(), member.to_lowercase());
            if !database.principals.contains_key(&pair.0) {
                return Err(Fault::no_principal("role", role, "alter"));
            }
            if !database.principals.contains_key(&pair.1) {
                return Err(Fault::no_principal("user", member, "add"));
            }
            let _ = if *adds {
                database.members.insert(pair)
            } else {
                database.members.remove(&pair)
            };
        }
        _ => changed_schema(database, definition, id),
    }
    Ok(())
}

fn changed_schema(database: &mut Database, definition: &Definition, id: i32) {
    match definition {
        Definition::CreateSchema { name, owner } => {
            let schema = Schema {
                id,
                name: name.clone(),
                owner: owner.as_deref().unwrap_or("dbo").to_lowercase(),
            };
            database.schemas.insert(name.to_lowercase(), schema);
        }
        Definition::Authorization { class, name, to } => {
            let to = to.to_lowercase();
            let (schemas, tables) = (&mut database.schemas, &mut database.tables);
            match class.as_str() {
                "schema" => schemas
                    .get_mut(&name.object)
                    .into_iter()
                    .for_each(|it| it.owner.clone_from(&to)),
                "object" => tables
                    .get_mut(&name.key())
                    .into_iter()
                    .for_each(|it| it.owner = Some(to.clone())),
                _ => {
                    if let Some(role) = database.principals.get_mut(&name.object) {
                        role.owner = Some(to);
                    }
                }
            }
        }
        _ => {}
    }
}
