//! Random SQL statements with calls in every position.
//!
//! Calls are marks of `stand_ins`. The tables `t` and `u`, and `tm` and `um` with the same rows, have the columns `id`
//! (unique), `v`, `b`, `lang`, `q`, `p` and `pid` (an `id`, or none). Whatever picks rows by their order (LIMIT,
//! `row_number`, DISTINCT ON) orders them completely. What can fail for a row (a division, a CAST) stands in a branch
//! of a CASE that is not taken for that row.

mod aggregates;
mod expressions;
mod queries;
mod sources;

use std::collections::BTreeSet;

use super::random::Random;

/// A part of the language that a generator can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// In ON, a call in a branch of a CASE with an argument that fails for rows of other branches.
    FailingArgumentInOn,
    /// Such a call in several places of a statement.
    FailingArgumentTwice,
    /// Calls that read no column.
    ConstantCall,
}

/// A statement, with marks for its calls.
pub(crate) struct Statement {
    pub(crate) sql: String,
    /// Whether its ORDER BY leaves no two rows in an order of their own.
    pub(crate) ordered: bool,
    /// The constructs that contain calls.
    pub(crate) constructs: BTreeSet<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Bool,
    Lang,
    Text,
    /// A number that is the same in both statements, to the last bit.
    Score,
    /// A result that is only read.
    Other,
}

#[derive(Debug, Clone)]
struct Column {
    sql: String,
    kind: Kind,
}

/// What an expression can read.
#[derive(Default, Clone)]
struct Scope {
    columns: Vec<Column>,
    /// Columns that together differ from row to row; none if that is not known.
    key: Option<Vec<String>>,
    /// Calls that were made of these columns before.
    calls: Vec<(usize, String)>,
}

impl Scope {
    fn of(&self, kind: Kind) -> Vec<String> {
        self.columns.iter().filter(|column| column.kind == kind).map(|column| column.sql.clone()).collect()
    }
}

/// What stands in a FROM.
struct Source {
    sql: String,
    scope: Scope,
    /// About how many rows it has at most.
    rows: usize,
}

/// A query in parentheses.
struct Query {
    sql: String,
    columns: Vec<(String, Kind)>,
    key: Option<Vec<String>>,
    rows: usize,
    ordered: bool,
}

/// A SELECT before its ORDER BY.
struct Body {
    sql: String,
    columns: Vec<(String, Kind)>,
    /// Names of the result that together differ from row to row.
    key: Option<Vec<String>>,
    /// Further expressions that ORDER BY may use.
    order: Vec<String>,
    /// Expressions that together differ from row to row, as ORDER BY may write them.
    tie: Option<Vec<String>>,
    rows: usize,
}

const TEXTS: [&str; 5] = ["'panda'", "'what is panda?'", "'Paris'", "'x'", "''"];

pub(crate) struct Generator<'a> {
    random: Random,
    /// For each variant, values between its scores.
    levels: &'a [Vec<f32>],
    off: &'a [Shape],
    names: usize,
    /// Whether DataFusion can plan EXISTS, IN and correlated subqueries here.
    subqueries: bool,
    in_on: bool,
    constructs: BTreeSet<&'static str>,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(random: Random, levels: &'a [Vec<f32>], off: &'a [Shape]) -> Self {
        Self { random, levels, off, names: 0, subqueries: false, in_on: false, constructs: BTreeSet::new() }
    }

    pub(crate) fn statement(mut self) -> Statement {
        let depth = self.pick(&[1, 1, 1, 2, 2, 3]);
        let query = self.query(depth, false);
        Statement { sql: query.sql, ordered: query.ordered, constructs: self.constructs }
    }

    fn on(&self, shape: Shape) -> bool {
        !self.off.contains(&shape)
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Notes that a construct contains a call, if it does.
    fn note(&mut self, construct: &'static str, sql: &str) {
        if sql.contains('⟨') {
            self.constructs.insert(construct);
        }
    }

    fn noted(&mut self, construct: &'static str, sql: String) -> String {
        self.note(construct, &sql);
        sql
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.random.percent(percent)
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        self.random.pick(choices).clone()
    }
}

/// The right side of a join, which may itself be a join.
fn in_parentheses(right: String) -> String {
    if right.contains(" JOIN ") { format!("({right})") } else { right }
}

fn table_scope(alias: &str) -> Scope {
    let column = |(name, kind): &(&str, Kind)| Column { sql: format!("{alias}.{name}"), kind: *kind };
    let columns = [
        ("id", Kind::Int),
        ("v", Kind::Int),
        ("b", Kind::Bool),
        ("lang", Kind::Lang),
        ("q", Kind::Text),
        ("p", Kind::Text),
        ("pid", Kind::Int),
    ];
    Scope { columns: columns.iter().map(column).collect(), key: Some(vec![format!("{alias}.id")]), calls: Vec::new() }
}

fn scope_of(alias: &str, columns: &[(String, Kind)], key: Option<&[String]>) -> Scope {
    let qualified = |name: &String| format!("{alias}.{name}");
    Scope {
        columns: columns.iter().map(|(name, kind)| Column { sql: qualified(name), kind: *kind }).collect(),
        key: key.map(|key| key.iter().map(qualified).collect()),
        calls: Vec::new(),
    }
}

fn both(left: Scope, right: Scope) -> Scope {
    let key = left.key.zip(right.key).map(|(left, right)| [left, right].concat());
    Scope { columns: [left.columns, right.columns].concat(), key, calls: [left.calls, right.calls].concat() }
}
