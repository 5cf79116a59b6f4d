//! Answers SELECT: joins by nested loops, filters, groups, sorts.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use gatepost::wire::tds::reply::{Column, ColumnKind};

use super::catalogue;
use super::evaluate::{Combination, Evaluator, Frame};
use super::fault::Fault;
use super::syntax::{Expr, Item, Join, Name, Operator, Select, Source};
use super::value::Value;

/// A table, or a view of the catalogue, as it is now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relation {
    /// In lower case.
    pub(crate) columns: Vec<(String, Option<ColumnKind>)>,
    pub(crate) rows: Vec<Vec<Value>>,
    /// The rows' numbers in their table.
    pub(crate) ids: Vec<u64>,
}

impl Relation {
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|(column, _)| column.eq_ignore_ascii_case(name))
    }

    pub(crate) fn kind(&self, name: &str) -> Option<ColumnKind> {
        let (_, kind) = self.columns.get(self.column(name)?)?;
        *kind
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) alias: String,
    pub(crate) relation: Relation,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) names: Vec<String>,
    pub(crate) kinds: Vec<ColumnKind>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Answer {
    pub(crate) fn columns(&self) -> Vec<Column<'_>> {
        let both = self.names.iter().zip(&self.kinds);
        both.map(|(name, kind)| Column { name, kind: *kind }).collect()
    }
}

pub(crate) fn is_aggregate(name: &str) -> bool {
    ["count", "count_big", "min", "max", "sum"].contains(&name)
}

/// Any aggregate that is not of a query within.
fn has_aggregate(expression: &Expr) -> bool {
    match expression {
        Expr::Call { name, arguments } => is_aggregate(name) || arguments.iter().any(has_aggregate),
        Expr::Cast { what, .. } | Expr::Not(what) | Expr::IsNull(what) => has_aggregate(what),
        Expr::Binary(_, left, right) => has_aggregate(left) || has_aggregate(right),
        Expr::Case {
            branches, otherwise, ..
        } => {
            branches.iter().any(|(_, result)| has_aggregate(result))
                || otherwise
                    .as_ref()
                    .is_some_and(|otherwise| has_aggregate(otherwise))
        }
        _ => false,
    }
}

/// The rows of a table or of a view of the catalogue.
pub(crate) fn relation(
    evaluator: Evaluator<'_>,
    name: &Name,
    filter: Option<&Expr>,
) -> Result<Relation, Fault> {
    if let Some(relation) = catalogue::view(evaluator.session, evaluator.model, name) {
        return Ok(relation);
    }
    let (database, key) = evaluator.session.place(name);
    if key == catalogue::NUMBERS {
        return Ok(catalogue::numbers(
            filter.and_then(|filter| bound(evaluator, filter)),
        ));
    }
    let table = evaluator
        .model
        .databases
        .get(&database)
        .and_then(|database| database.tables.get(&key))
        .ok_or_else(|| Fault::no_object(&name.shown))?;
    let transaction = evaluator.session.transaction_id();
    let found = filter.and_then(|filter| {
        let (column, value) = pinned(evaluator, filter)?;
        table.found(table.column(&column)?, &value, transaction)
    });
    let columns = table.columns.iter();
    let mut relation = Relation {
        columns: columns
            .map(|column| (column.name.clone(), Some(column.kind)))
            .collect(),
        ..Relation::default()
    };
    let rows: Vec<_> = match found {
        Some(rows) => rows,
        None => table.visible(transaction).collect(),
    };
    for (id, row) in rows {
        relation.ids.push(id);
        relation.rows.push(row.clone());
    }
    Ok(relation)
}

/// Does somebody's open transaction have a row that one of the tables with READCOMMITTEDLOCK is asked for?
pub(crate) fn is_locked(evaluator: Evaluator<'_>, select: &Select) -> Result<bool, Fault> {
    let transaction = evaluator.session.transaction_id();
    for source in select.sources.iter().filter(|source| source.waits) {
        let (database, key) = evaluator.session.place(&source.name);
        let Some(table) = evaluator
            .model
            .databases
            .get(&database)
            .and_then(|database| database.tables.get(&key))
        else {
            continue;
        };
        let columns = table.columns.iter();
        let columns: Vec<_> = columns.map(|it| (it.name.clone(), Some(it.kind))).collect();
        for row in table.unsettled(transaction) {
            let sources = [Loaded {
                alias: source.alias.clone(),
                relation: Relation {
                    columns: columns.clone(),
                    rows: vec![row.clone()],
                    ids: Vec::new(),
                },
            }];
            let frame = Frame {
                sources: &sources,
                row: &[Some(0)],
                group: None,
                outer: None,
            };
            let fits = select.filter.as_ref();
            let fits = fits.map_or(Ok(Some(true)), |filter| evaluator.truth(filter, &frame))?;
            if fits == Some(true) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// `n < limit` alone.
fn bound(evaluator: Evaluator<'_>, filter: &Expr) -> Option<i64> {
    match filter {
        Expr::Binary(Operator::Less, _, limit) => {
            let limit = evaluator.value(limit, &super::evaluate::NOWHERE);
            limit.ok()?.as_int()
        }
        _ => None,
    }
}

/// `column = value`, alone or with AND: then a key may lead to the rows.
fn pinned(evaluator: Evaluator<'_>, filter: &Expr) -> Option<(String, Value)> {
    match filter {
        Expr::Binary(Operator::And, left, right) => {
            pinned(evaluator, left).or_else(|| pinned(evaluator, right))
        }
        Expr::Binary(Operator::Equal, left, right) => match (&**left, &**right) {
            (Expr::Column { name, .. }, Expr::Value(value)) => Some((name.clone(), value.clone())),
            (Expr::Column { name, .. }, Expr::Variable(variable)) => {
                let (_, value) = evaluator.session.variable(variable)?;
                Some((name.clone(), value.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn answer(
    evaluator: Evaluator<'_>,
    select: &Select,
    outer: Option<&Frame<'_>>,
) -> Result<Answer, Fault> {
    let mut answer = one(evaluator, select, outer)?;
    if let Some(union) = &select.union {
        answer.rows.extend(self::answer(evaluator, union, outer)?.rows);
    }
    Ok(answer)
}

fn load(evaluator: Evaluator<'_>, select: &Select) -> Result<Vec<Loaded>, Fault> {
    let alone = select.sources.len() == 1;
    let load = |source: &Source| {
        let filter = select.filter.as_ref().filter(|_| alone);
        let relation = relation(evaluator, &source.name, filter)?;
        let alias = source.alias.clone();
        Ok(Loaded { alias, relation })
    };
    select.sources.iter().map(load).collect()
}

fn one(evaluator: Evaluator<'_>, select: &Select, outer: Option<&Frame<'_>>) -> Result<Answer, Fault> {
    let sources = load(evaluator, select)?;
    let mut rows = joined(evaluator, &select.sources, &sources, outer)?;
    if let Some(filter) = &select.filter {
        let mut kept = Vec::new();
        for row in rows {
            let frame = Frame {
                sources: &sources,
                row: &row,
                group: None,
                outer,
            };
            if evaluator.truth(filter, &frame)? == Some(true) {
                kept.push(row);
            }
        }
        rows = kept;
    }
    let items = expanded(&select.items, &sources);
    if rows.is_empty() {
        check_columns(evaluator, select, &items, &sources, outer)?;
    }
    let groups = grouped(evaluator, select, &items, &sources, rows, outer)?;
    let mut keyed = Vec::new();
    for (row, group) in &groups {
        let frame = Frame {
            sources: &sources,
            row,
            group: group.as_deref(),
            outer,
        };
        let values = items.iter().map(|item| evaluator.value(&item.what, &frame));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let order = select.order.iter().map(|(by, descends)| {
            let value = sort_key(evaluator, by, &items, &values, &frame)?;
            Ok((value, *descends))
        });
        keyed.push((order.collect::<Result<Vec<_>, Fault>>()?, values));
    }
    keyed.sort_by(|(one, _), (two, _)| by_order(one, two));
    let mut rows: Vec<Vec<Value>> = keyed.into_iter().map(|(_, values)| values).collect();
    if select.distinct {
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|row| seen.insert(row.iter().map(Value::key).collect::<Vec<_>>()));
    }
    if let Some(top) = &select.top {
        let top = evaluator.value(top, outer.unwrap_or(&super::evaluate::NOWHERE))?;
        rows.truncate(usize::try_from(top.as_int().unwrap_or_default()).unwrap_or_default());
    }
    Ok(described(evaluator, &items, &sources, rows))
}

/// Unknown columns are an error also where there is no row.
fn check_columns(
    evaluator: Evaluator<'_>,
    select: &Select,
    items: &[Item],
    sources: &[Loaded],
    outer: Option<&Frame<'_>>,
) -> Result<(), Fault> {
    let nothing: Combination = sources.iter().map(|_| None).collect();
    let frame = Frame {
        sources,
        row: &nothing,
        group: Some(&[]),
        outer,
    };
    let values = items
        .iter()
        .map(|item| evaluator.value(&item.what, &frame).map(drop));
    let filter = select.filter.iter();
    let filter = filter.map(|filter| evaluator.truth(filter, &frame).map(drop));
    for checked in values.chain(filter) {
        match checked {
            Err(fault) if fault.number == 207 => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

fn described(evaluator: Evaluator<'_>, items: &[Item], sources: &[Loaded], rows: Vec<Vec<Value>>) -> Answer {
    let mut answer = Answer::default();
    for (place, item) in items.iter().enumerate() {
        let name = match (&item.alias, &item.what) {
            (Some(alias), _) => alias.clone(),
            (None, Expr::Column { name, .. }) => name.clone(),
            (None, _) => String::new(),
        };
        let known = evaluator.kind(&item.what, sources);
        let values = rows.iter().filter_map(|row| row.get(place)?.kind());
        answer
            .kinds
            .push(known.unwrap_or_else(|| values.reduce(wider).unwrap_or(ColumnKind::Int)));
        answer.names.push(name);
    }
    answer.rows = rows;
    answer
}

/// What holds the values of both.
fn wider(one: ColumnKind, two: ColumnKind) -> ColumnKind {
    const fn rank(kind: ColumnKind) -> u8 {
        match kind {
            ColumnKind::Bit => 0,
            ColumnKind::Int => 1,
            ColumnKind::BigInt => 2,
            ColumnKind::Decimal { .. } => 3,
            ColumnKind::Float => 4,
            ColumnKind::DateTime2 { .. } => 5,
            ColumnKind::UniqueIdentifier => 6,
            ColumnKind::VarBinary(_) => 7,
            ColumnKind::VarBinaryMax => 8,
            ColumnKind::NVarChar(_) => 9,
            ColumnKind::NVarCharMax => 10,
        }
    }
    if rank(one) >= rank(two) { one } else { two }
}

fn expanded(items: &[Item], sources: &[Loaded]) -> Vec<Item> {
    let mut all = Vec::new();
    for item in items {
        let Expr::Star(of) = &item.what else {
            all.push(item.clone());
            continue;
        };
        for source in sources
            .iter()
            .filter(|source| of.as_ref().is_none_or(|of| *of == source.alias))
        {
            let columns = source.relation.columns.iter().map(|(name, _)| Item {
                what: Expr::Column {
                    of: Some(source.alias.clone()),
                    name: name.to_lowercase(),
                },
                alias: Some(name.clone()),
                into: None,
            });
            all.extend(columns);
        }
    }
    all
}

fn joined(
    evaluator: Evaluator<'_>,
    joins: &[Source],
    sources: &[Loaded],
    outer: Option<&Frame<'_>>,
) -> Result<Vec<Combination>, Fault> {
    let mut rows: Vec<Combination> = vec![vec![]];
    for (at, (source, loaded)) in joins.iter().zip(sources).enumerate() {
        let so_far = sources.get(..=at).unwrap_or(sources);
        let mut next = Vec::new();
        for row in rows {
            let mut matched = false;
            for index in 0..loaded.relation.rows.len() {
                let mut candidate = row.clone();
                candidate.push(Some(index));
                let frame = Frame {
                    sources: so_far,
                    row: &candidate,
                    group: None,
                    outer,
                };
                let fits = match &source.join {
                    Join::First | Join::Cross => true,
                    Join::Inner(on) | Join::Left(on) => evaluator.truth(on, &frame)? == Some(true),
                };
                if fits {
                    matched = true;
                    next.push(candidate);
                }
            }
            if !matched && matches!(source.join, Join::Left(_)) {
                let mut candidate = row;
                candidate.push(None);
                next.push(candidate);
            }
        }
        rows = next;
    }
    Ok(rows)
}

type Groups = Vec<(Combination, Option<Vec<Combination>>)>;

/// Each row for itself, or one row for each group.
fn grouped(
    evaluator: Evaluator<'_>,
    select: &Select,
    items: &[Item],
    sources: &[Loaded],
    rows: Vec<Combination>,
    outer: Option<&Frame<'_>>,
) -> Result<Groups, Fault> {
    let aggregates = items.iter().any(|item| has_aggregate(&item.what));
    if select.groups.is_empty() && !aggregates {
        return Ok(rows.into_iter().map(|row| (row, None)).collect());
    }
    let mut groups: BTreeMap<Vec<String>, Vec<Combination>> = BTreeMap::new();
    if select.groups.is_empty() {
        groups.insert(Vec::new(), rows);
    } else {
        for row in rows {
            let frame = Frame {
                sources,
                row: &row,
                group: None,
                outer,
            };
            let key = select
                .groups
                .iter()
                .map(|by| Ok(evaluator.value(by, &frame)?.key()));
            let key = key.collect::<Result<Vec<_>, Fault>>()?;
            groups.entry(key).or_default().push(row);
        }
    }
    let nothing = || sources.iter().map(|_| None).collect();
    let groups = groups.into_values();
    Ok(groups
        .map(|group| (group.first().cloned().unwrap_or_else(nothing), Some(group)))
        .collect())
}

/// By an alias or a place in the list, or by an expression.
fn sort_key(
    evaluator: Evaluator<'_>,
    by: &Expr,
    items: &[Item],
    values: &[Value],
    frame: &Frame<'_>,
) -> Result<Value, Fault> {
    let place = match by {
        Expr::Value(Value::Int(place)) => usize::try_from(place - 1).ok(),
        Expr::Column { of: None, name } => items.iter().position(|item| {
            item.alias
                .as_ref()
                .is_some_and(|alias| alias.eq_ignore_ascii_case(name))
        }),
        _ => None,
    };
    match place.and_then(|place| values.get(place)) {
        Some(value) => Ok(value.clone()),
        None => evaluator.value(by, frame),
    }
}

/// NULL comes first.
fn by_order(one: &[(Value, bool)], two: &[(Value, bool)]) -> Ordering {
    for ((left, descends), (right, _)) in one.iter().zip(two) {
        let order = match (left.is_null(), right.is_null()) {
            (false, false) => left.compare(right).ok().flatten().unwrap_or(Ordering::Equal),
            (left, right) => right.cmp(&left),
        };
        let order = if *descends { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}
