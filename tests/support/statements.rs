//! Random SQL statements with calls in every position.
//!
//! Calls are marks of `stand_ins`. The tables `t` and `u`, and `tm` and `um` with the same rows, have the columns `id`
//! (unique), `v`, `b`, `lang`, `q`, `p` and `pid` (an `id`, or none). Whatever picks rows by their order (LIMIT,
//! `row_number`, DISTINCT ON) orders them completely. What can fail for a row (a division, a CAST) stands in a branch of
//! a CASE that is not taken for that row.

use std::collections::BTreeSet;

use super::stand_ins::{Returns, VARIANTS};

/// Random numbers that are the same for a seed forever, so that a failure can be repeated with the versions of another
/// day (`SplitMix64`).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed);
        random.0 = random.next().wrapping_add(number);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in this many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// A part of the language that a generator can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// DataFusion moves fields of structs towards the tables.
    LeafPushdown,
    /// Several window functions in a SELECT.
    SeveralWindows,
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
    constructs: BTreeSet<&'static str>,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(random: Random, levels: &'a [Vec<f32>], off: &'a [Shape]) -> Self {
        Self { random, levels, off, names: 0, subqueries: false, constructs: BTreeSet::new() }
    }

    pub(crate) fn statement(mut self) -> Statement {
        let depth = self.pick(&[1, 1, 2, 2, 3]);
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

    fn percent(&mut self, percent: usize) -> bool {
        self.random.percent(percent)
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        self.random.pick(choices).clone()
    }

    // ---- Queries

    /// A query. One that is `read` by another has its key among its columns, if it has one.
    fn query(&mut self, depth: usize, read: bool) -> Query {
        match self.random.below(if depth == 0 { 50 } else { 100 }) {
            0..50 => self.select(depth, read),
            50..65 => self.aggregated(depth),
            65..75 => self.best_of_each(depth, read),
            75..85 => self.common_table(depth, read),
            _ => self.set_operation(depth),
        }
    }

    fn select(&mut self, depth: usize, read: bool) -> Query {
        let mut source = self.source(depth);
        let filter = self.filter(&mut source, depth);
        let body = match self.random.below(100) {
            0..60 => self.plain(&mut source, &filter, depth, read),
            60..78 => self.windowed(&mut source, &filter, depth, read),
            78..86 => self.distinct(&mut source, &filter, depth),
            86..93 => self.distinct_on(&mut source, &filter, depth),
            _ => self.unnested(&mut source, &filter, depth),
        };
        self.ordered(body, &mut source.scope, depth)
    }

    /// Columns for SELECT, each under a name of its own.
    fn items(&mut self, scope: &mut Scope, depth: usize, read: bool) -> (Vec<String>, Vec<(String, Kind)>) {
        let mut items = Vec::new();
        let mut columns = Vec::new();
        for _ in 0..=self.random.below(3) {
            let (sql, kind) = match self.random.below(20) {
                0..11 => (self.number(scope, depth), Kind::Score),
                11..15 => (self.condition(scope, depth), Kind::Bool),
                15 => match self.details(scope, depth) {
                    // The struct itself only where it is printed; nothing compares or groups structs.
                    details if !read => (details, Kind::Other),
                    details => (format!("{details}['score']"), Kind::Score),
                },
                16 => (self.text(scope, depth), Kind::Text),
                _ => match self.random.pick(&scope.columns) {
                    Column { sql, kind } => (sql.clone(), *kind),
                },
            };
            let name = self.name("c");
            items.push(format!("{sql} AS {name}"));
            columns.push((name, kind));
        }
        (items, columns)
    }

    /// Adds the columns of the key, and a query and a passage for the calls of whoever reads the result.
    fn with_key(
        &mut self,
        scope: &Scope,
        read: bool,
        items: &mut Vec<String>,
        columns: &mut Vec<(String, Kind)>,
    ) -> Option<Vec<String>> {
        let mut names = None;
        if let (Some(key), true) = (&scope.key, read || self.percent(70)) {
            let mut of_key = Vec::new();
            for part in key {
                let name = self.name("k");
                let kind =
                    scope.columns.iter().find(|column| column.sql == *part).map_or(Kind::Int, |column| column.kind);
                items.push(format!("{part} AS {name}"));
                columns.push((name.clone(), kind));
                of_key.push(name);
            }
            names = Some(of_key);
        }
        if read {
            for kind in [Kind::Text, Kind::Text, Kind::Int, Kind::Lang, Kind::Bool] {
                let choices = scope.of(kind);
                if !choices.is_empty() && self.percent(70) {
                    let (choice, name) = (self.pick(&choices), self.name("c"));
                    items.push(format!("{choice} AS {name}"));
                    columns.push((name, kind));
                }
            }
        }
        names
    }

    fn plain(&mut self, source: &mut Source, filter: &str, depth: usize, read: bool) -> Body {
        let (mut items, mut columns) = self.items(&mut source.scope, depth, read);
        let key = self.with_key(&source.scope, read, &mut items, &mut columns);
        if self.percent(8) {
            // A name that hides a column of the table in ORDER BY.
            let name = columns[0].0.clone();
            items[0] = items[0].replace(&format!(" AS {name}"), " AS v");
            "v".clone_into(&mut columns[0].0);
        }
        let items = items.join(", ");
        self.note("SELECT", &items);
        Body {
            sql: format!("SELECT {items} FROM {}{filter}", source.sql),
            order: columns.iter().filter(|(_, kind)| *kind != Kind::Other).map(|(name, _)| name.clone()).collect(),
            columns,
            key,
            tie: source.scope.key.clone(),
            rows: source.rows,
        }
    }

    fn windowed(&mut self, source: &mut Source, filter: &str, depth: usize, read: bool) -> Body {
        let scope = &mut source.scope;
        let (mut items, mut columns) = self.items(scope, depth, read);
        let several = self.percent(50) && self.on(Shape::SeveralWindows);
        for _ in 0..1 + usize::from(several) {
            let (window, kind) = self.window(scope, depth);
            self.note("window", &window);
            let name = self.name("w");
            items.push(format!("{window} AS {name}"));
            columns.push((name, kind));
        }
        let key = self.with_key(scope, read, &mut items, &mut columns);
        let mut qualify = String::new();
        if let (Some(_), true) = (&scope.key, self.percent(20) && self.on(Shape::SeveralWindows)) {
            let place = self.place(scope, depth);
            self.note("QUALIFY", &place);
            qualify = format!(" QUALIFY {place} <= {}", 1 + self.random.below(3));
        }
        Body {
            sql: format!("SELECT {} FROM {}{filter}{qualify}", items.join(", "), source.sql),
            order: columns.iter().filter(|(_, kind)| *kind != Kind::Other).map(|(name, _)| name.clone()).collect(),
            columns,
            key,
            tie: source.scope.key.clone(),
            rows: source.rows,
        }
    }

    fn distinct(&mut self, source: &mut Source, filter: &str, depth: usize) -> Body {
        let (items, columns) = self.items(&mut source.scope, depth, true);
        let items = items.join(", ");
        self.note("DISTINCT", &items);
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        Body {
            sql: format!("SELECT DISTINCT {items} FROM {}{filter}", source.sql),
            order: Vec::new(),
            columns,
            key: Some(names.clone()),
            tie: Some(names),
            rows: source.rows,
        }
    }

    fn distinct_on(&mut self, source: &mut Source, filter: &str, depth: usize) -> Body {
        let Some(key) = source.scope.key.clone() else { return self.distinct(source, filter, depth) };
        let scope = &mut source.scope;
        let on = if self.percent(60) { self.number(scope, depth) } else { self.cheap_value(scope) };
        let then = self.number(scope, depth);
        let (items, columns) = self.items(scope, depth, true);
        self.note("DISTINCT ON", &format!("{on}{then}{items:?}"));
        // As a subquery: an ORDER BY of its own must begin with the expressions of ON.
        let inner = format!(
            "SELECT DISTINCT ON ({on}) {} FROM {}{filter} ORDER BY {on}, {then}, {}",
            items.join(", "),
            source.sql,
            key.join(", ")
        );
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        let alias = self.name("s");
        Body {
            sql: format!("SELECT * FROM ({inner}) AS {alias}"),
            order: names.clone(),
            columns,
            key: None,
            tie: Some(names),
            rows: source.rows,
        }
    }

    fn unnested(&mut self, source: &mut Source, filter: &str, depth: usize) -> Body {
        let (first, second) = (self.number(&mut source.scope, depth), self.number(&mut source.scope, depth));
        let name = self.name("c");
        let mut items = vec![format!("unnest(make_array({first}, {second})) AS {name}")];
        self.note("unnest", &items[0]);
        let mut columns = vec![(name, Kind::Score)];
        self.with_key(&source.scope, true, &mut items, &mut columns);
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        Body {
            sql: format!("SELECT {} FROM {}{filter}", items.join(", "), source.sql),
            order: Vec::new(),
            columns,
            key: None,
            tie: Some(names),
            rows: 2 * source.rows,
        }
    }

    /// Adds ORDER BY, LIMIT and OFFSET, or not.
    fn ordered(&mut self, body: Body, scope: &mut Scope, depth: usize) -> Query {
        let Body { mut sql, columns, key, order, tie, mut rows } = body;
        let mut ordered = false;
        if let (Some(tie), true) = (tie, self.percent(45)) {
            let mut keys = Vec::new();
            for _ in 0..self.random.below(3) {
                let key = match self.random.below(3) {
                    0 if !order.is_empty() => self.pick(&order),
                    1 | 2
                        if !order.is_empty() && depth > 0 && !sql.starts_with("SELECT * FROM (SELECT DISTINCT ON") =>
                    {
                        if self.percent(75) {
                            self.number(scope, depth - 1)
                        } else {
                            self.cheap_value(scope)
                        }
                    }
                    _ => continue,
                };
                keys.push(format!("{key}{}", self.pick(&["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"])));
            }
            keys.extend(tie);
            let keys = keys.join(", ");
            self.note("ORDER BY", &keys);
            sql = format!("{sql} ORDER BY {keys}");
            ordered = true;
            if self.percent(60) {
                let limit = 1 + self.random.below(8);
                self.note("LIMIT", &sql);
                sql = format!("{sql} LIMIT {limit}");
                rows = rows.min(limit);
                if self.percent(40) {
                    sql = format!("{sql} OFFSET {}", self.random.below(4));
                }
            }
        }
        Query { sql, columns, key, rows, ordered }
    }

    fn aggregated(&mut self, depth: usize) -> Query {
        let mut source = self.source(depth);
        let filter = self.filter(&mut source, depth);
        let scope = &mut source.scope;
        let mut groups: Vec<(String, Kind)> = Vec::new();
        for _ in 0..self.random.below(3) {
            let group = match self.random.below(10) {
                0..3 => (self.number(scope, depth), Kind::Score),
                3 => (self.condition(scope, depth), Kind::Bool),
                4 => (self.text(scope, depth), Kind::Text),
                _ => {
                    let column = self.random.pick(&scope.columns).clone();
                    (column.sql, column.kind)
                }
            };
            if group.1 != Kind::Other && groups.iter().all(|(sql, _)| *sql != group.0) {
                groups.push(group);
            }
        }
        let mut items = Vec::new();
        let mut columns = Vec::new();
        // What stands for rows of the result: groups and aggregates.
        let mut above = Scope::default();
        for (sql, kind) in &groups {
            let name = self.name("g");
            items.push(format!("{sql} AS {name}"));
            columns.push((name, *kind));
            self.note("GROUP BY", sql);
            if !sql.contains('⟨') {
                above.columns.push(Column { sql: sql.clone(), kind: *kind });
            }
        }
        for _ in 0..=self.random.below(3) {
            let (aggregate, kind) = self.aggregate(scope, depth);
            self.note("aggregate", &aggregate);
            if aggregate.contains("FILTER") {
                self.note("FILTER", &aggregate);
            }
            if kind == Kind::Score {
                above.columns.push(Column { sql: aggregate.clone(), kind: Kind::Score });
            }
            let name = self.name("a");
            items.push(format!("{aggregate} AS {name}"));
            columns.push((name, kind));
        }
        let texts = scope.of(Kind::Text);
        if !texts.is_empty() && self.percent(30) {
            let (first, second) = (self.pick(&texts), self.pick(&texts));
            for sql in [format!("min({first})"), format!("max({second})")] {
                above.columns.push(Column { sql, kind: Kind::Text });
            }
            let number = self.number(&mut above, depth.min(1));
            let name = self.name("c");
            self.note("above an aggregate", &number);
            items.push(format!("{number} AS {name}"));
            columns.push((name, Kind::Score));
        }
        let names: Vec<String> = groups.iter().zip(&columns).map(|(_, (name, _))| name.clone()).collect();
        let group_sql: Vec<String> = groups.iter().map(|(sql, _)| sql.clone()).collect();
        let mut sets = false;
        let group_by = match (group_sql.as_slice(), self.random.below(10)) {
            ([], _) => String::new(),
            (all, 0) => {
                sets = true;
                format!(" GROUP BY ROLLUP ({})", all.join(", "))
            }
            (all, 1) => {
                sets = true;
                format!(" GROUP BY CUBE ({})", all.join(", "))
            }
            ([first, rest @ ..], 2) => {
                sets = true;
                let rest = rest.first().map_or(String::new(), |second| format!(", ({second}), ({first}, {second})"));
                format!(" GROUP BY GROUPING SETS (({first}){rest}, ())")
            }
            (_, 3) => format!(" GROUP BY {}", names.join(", ")),
            (all, 4) => format!(" GROUP BY {}", (1..=all.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")),
            (all, _) => format!(" GROUP BY {}", all.join(", ")),
        };
        if sets {
            self.note("grouping sets", &group_by);
        }
        let mut having = String::new();
        if self.percent(35) {
            let (aggregate, kind) = self.aggregate(scope, depth);
            let condition = match kind {
                Kind::Score => format!("{aggregate} {} {}", self.pick(&[">", "<="]), self.level(0)),
                _ => format!("count(*) {} {}", self.pick(&[">", "<="]), 1 + self.random.below(4)),
            };
            self.note("HAVING", &condition);
            having = format!(" HAVING {condition}");
        }
        let sql = format!("SELECT {} FROM {}{filter}{group_by}{having}", items.join(", "), source.sql);
        let key = (!sets && !names.is_empty()).then(|| names.clone());
        let order = columns.iter().filter(|(_, kind)| *kind == Kind::Score).map(|(name, _)| name.clone()).collect();
        let body = Body { sql, columns, key: key.clone(), order, tie: key, rows: source.rows };
        // Depth 0: ORDER BY may use only what the result has.
        self.ordered(body, &mut Scope::default(), 0)
    }

    /// The rows with the best scores of each group.
    fn best_of_each(&mut self, depth: usize, read: bool) -> Query {
        let mut source = self.source(depth - 1);
        let filter = self.filter(&mut source, depth - 1);
        if source.scope.key.is_none() {
            return self.select(depth, read);
        }
        let place = self.place(&mut source.scope, depth);
        let (mut items, mut columns) = self.items(&mut source.scope, depth - 1, true);
        let key = self.with_key(&source.scope, true, &mut items, &mut columns);
        let name = self.name("n");
        items.push(format!("{place} AS {name}"));
        columns.push((name.clone(), Kind::Int));
        self.note("row_number() <= k", &items.join(", "));
        let alias = self.name("s");
        let mut scope = scope_of(&alias, &columns, key.as_deref());
        let mut conditions = vec![format!("{alias}.{name} <= {}", 1 + self.random.below(3))];
        if self.percent(40) {
            conditions.push(self.condition(&mut scope, 1));
        }
        let star = self.percent(50);
        let list = if star {
            "*".to_owned()
        } else {
            scope.columns.iter().map(|c| c.sql.clone()).collect::<Vec<_>>().join(", ")
        };
        let sql = format!(
            "SELECT {list} FROM (SELECT {} FROM {}{filter}) AS {alias} WHERE {}",
            items.join(", "),
            source.sql,
            conditions.join(" AND ")
        );
        let body = Body {
            sql,
            order: columns.iter().map(|(name, _)| name.clone()).collect(),
            columns,
            key: key.clone(),
            tie: scope.key.clone(),
            rows: source.rows,
        };
        self.ordered(body, &mut scope, 1)
    }

    fn common_table(&mut self, depth: usize, read: bool) -> Query {
        let inner = self.query(depth - 1, true);
        let table = self.name("cte");
        let (a, b) = (self.name("s"), self.name("s"));
        let mut source = if let (Some(key), true) = (&inner.key, inner.rows <= 200) {
            let on: Vec<String> = key.iter().map(|part| format!("{a}.{part} = {b}.{part}")).collect();
            let (left, right) = (scope_of(&a, &inner.columns, Some(key)), scope_of(&b, &inner.columns, Some(key)));
            let sql =
                format!("{table} AS {a} {} {table} AS {b} ON {}", self.pick(&["JOIN", "LEFT JOIN"]), on.join(" AND "));
            Source { sql, scope: both(left, right), rows: inner.rows }
        } else {
            Source {
                sql: format!("{table} AS {a}"),
                scope: scope_of(&a, &inner.columns, inner.key.as_deref()),
                rows: inner.rows,
            }
        };
        self.note("CTE", &inner.sql);
        let filter = self.filter(&mut source, depth - 1);
        let body = self.plain(&mut source, &filter, depth - 1, read);
        let body = Body { sql: format!("WITH {table} AS ({}) {}", inner.sql, body.sql), ..body };
        self.ordered(body, &mut source.scope, depth - 1)
    }

    fn set_operation(&mut self, depth: usize) -> Query {
        let mut kinds = vec![Kind::Int, Kind::Score, Kind::Lang];
        kinds.truncate(1 + self.random.below(3));
        if self.percent(30) {
            kinds = vec![Kind::Score];
        }
        let names: Vec<String> = kinds.iter().map(|_| self.name("c")).collect();
        let mut sides = Vec::new();
        let mut total = 0;
        for _ in 0..2 {
            let mut source = self.source(depth - 1);
            let filter = self.filter(&mut source, depth - 1);
            let items: Vec<String> = kinds
                .iter()
                .zip(&names)
                .map(|(kind, name)| {
                    let columns = source.scope.of(*kind);
                    let sql = match kind {
                        Kind::Int if !columns.is_empty() => self.pick(&columns),
                        Kind::Lang if !columns.is_empty() => self.pick(&columns),
                        Kind::Lang => "'en'".to_owned(),
                        Kind::Int => "1".to_owned(),
                        _ => self.number(&mut source.scope, depth - 1),
                    };
                    format!("{sql} AS {name}")
                })
                .collect();
            total += source.rows;
            sides.push(format!("SELECT {} FROM {}{filter}", items.join(", "), source.sql));
        }
        let operation = self.pick(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "UNION ALL"]);
        let sql = sides.join(&format!(" {operation} "));
        self.note(operation, &sql);
        let columns = names.iter().cloned().zip(kinds).collect();
        let key = (operation != "UNION ALL").then(|| names.clone());
        let body = Body { sql, columns, key, order: names.clone(), tie: Some(names), rows: total };
        self.ordered(body, &mut Scope::default(), 0)
    }

    // ---- FROM and WHERE

    fn filter(&mut self, source: &mut Source, depth: usize) -> String {
        if self.percent(35) {
            return String::new();
        }
        self.subqueries = true;
        let mut conditions = vec![self.condition(&mut source.scope, depth)];
        if self.percent(40) {
            conditions.push(self.cheap(&source.scope));
        }
        if self.percent(20) {
            conditions.push(self.condition(&mut source.scope, depth));
        }
        if self.percent(40) {
            conditions.reverse();
        }
        self.subqueries = false;
        let condition = conditions.join(" AND ");
        self.note("WHERE", &condition);
        format!(" WHERE {condition}")
    }

    fn source(&mut self, depth: usize) -> Source {
        if depth == 0 {
            return self.table();
        }
        match self.random.below(100) {
            0..40 => self.table(),
            40..65 => self.derived(depth - 1),
            65..72 => self.lateral(depth),
            _ => self.join(depth - 1),
        }
    }

    fn table(&mut self) -> Source {
        let alias = self.name("s");
        if self.percent(4) {
            let sql = format!(
                "(VALUES (1, 'en', 'what is panda?', 'hi'), (2, NULL, 'Paris', 'x'), (3, 'de', NULL, 'Paris')) AS {alias}(id, lang, q, p)"
            );
            let column = |name: &str, kind| Column { sql: format!("{alias}.{name}"), kind };
            let columns = vec![
                column("id", Kind::Int),
                column("lang", Kind::Lang),
                column("q", Kind::Text),
                column("p", Kind::Text),
            ];
            let scope = Scope { columns, key: Some(vec![format!("{alias}.id")]), calls: Vec::new() };
            return Source { sql, scope, rows: 3 };
        }
        let (table, rows) = self.pick(&[("t", 40), ("t", 40), ("tm", 40), ("u", 15), ("um", 15)]);
        let scope = table_scope(&alias);
        Source { sql: format!("{table} AS {alias}"), scope, rows }
    }

    /// A query in FROM.
    fn derived(&mut self, depth: usize) -> Source {
        let alias = self.name("s");
        if self.percent(35) {
            // All columns of a table and more.
            let mut source = self.table();
            let filter = self.filter(&mut source, depth);
            let mut columns: Vec<(String, Kind)> = source
                .scope
                .columns
                .iter()
                .filter_map(|column| Some((column.sql.rsplit('.').next()?.to_owned(), column.kind)))
                .collect();
            let (items, more) = self.items(&mut source.scope, depth, true);
            columns.extend(more);
            let sql = format!("(SELECT *, {} FROM {}{filter}) AS {alias}", items.join(", "), source.sql);
            self.note("subquery in FROM", &sql);
            let scope = scope_of(&alias, &columns, Some(&["id".to_owned()]));
            return Source { sql, scope, rows: source.rows };
        }
        let query = self.query(depth, true);
        self.note("subquery in FROM", &query.sql);
        let scope = scope_of(&alias, &query.columns, query.key.as_deref());
        Source { sql: format!("({}) AS {alias}", query.sql), scope, rows: query.rows }
    }

    /// A table and a query that reads its columns.
    fn lateral(&mut self, depth: usize) -> Source {
        let left = self.table();
        let right = self.table();
        let (alias, name) = (self.name("s"), self.name("c"));
        let mut scope = right.scope.clone();
        let value = self.number(&mut scope, depth - 1);
        let mut condition = String::new();
        if self.percent(60) {
            condition = format!(" AND {}", self.condition(&mut scope, depth - 1));
        }
        let links = left.scope.of(Kind::Int);
        let link = self.pick(&links);
        let right_id = right.scope.key.clone().unwrap_or_default().join("");
        let kind = self.pick(&["CROSS JOIN LATERAL", "LEFT JOIN LATERAL"]);
        let on = if kind.starts_with("LEFT") { " ON true" } else { "" };
        let sql = format!(
            "{} {kind} (SELECT max({value}) AS {name} FROM {} WHERE {right_id} = {link}{condition}) AS {alias}{on}",
            left.sql, right.sql
        );
        self.note("LATERAL", &sql);
        let mut scope = left.scope;
        scope.columns.push(Column { sql: format!("{alias}.{name}"), kind: Kind::Score });
        Source { sql, scope, rows: left.rows }
    }

    fn join(&mut self, depth: usize) -> Source {
        let mut left = self.source(depth);
        let mut right = if self.percent(60) { self.table() } else { self.source(depth) };
        if left.rows * right.rows <= 700 && self.percent(20) {
            self.note("CROSS JOIN", &format!("{}{}", left.sql, right.sql));
            return Source {
                sql: format!("{} CROSS JOIN {}", left.sql, right.sql),
                scope: both(left.scope, right.scope),
                rows: left.rows * right.rows,
            };
        }
        let kind = self.pick(&[
            "JOIN",
            "JOIN",
            "JOIN",
            "LEFT JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "LEFT SEMI JOIN",
            "LEFT ANTI JOIN",
            "RIGHT SEMI JOIN",
            "RIGHT ANTI JOIN",
        ]);
        let mut on = Vec::new();
        let (left_ints, right_ints) = (left.scope.of(Kind::Int), right.scope.of(Kind::Int));
        let (left_texts, right_texts) = (left.scope.of(Kind::Text), right.scope.of(Kind::Text));
        let rows = left.rows.max(right.rows) * 3;
        match self.random.below(10) {
            0 | 1 if !left_texts.is_empty() && !right_texts.is_empty() && left.rows * right.rows <= 2000 => {
                on.push(format!("{} = {}", self.pick(&left_texts), self.pick(&right_texts)));
            }
            2 if left.rows * right.rows <= 700 => {
                on.push(format!("{} = {}", self.number(&mut left.scope, 1), self.number(&mut right.scope, 1)));
            }
            3 if left.rows * right.rows <= 700 && !left_ints.is_empty() && !right_ints.is_empty() => {
                on.push(format!("{} < {}", self.pick(&left_ints), self.pick(&right_ints)));
            }
            _ if !left_ints.is_empty() && !right_ints.is_empty() => {
                on.push(format!("{} = {}", self.pick(&left_ints), self.pick(&right_ints)));
            }
            _ => return left,
        }
        if self.percent(40) {
            on.push(self.condition(&mut left.scope, 1));
        }
        if self.percent(30) {
            on.push(self.condition(&mut right.scope, 1));
        }
        if self.percent(if kind == "JOIN" { 35 } else { 2 }) {
            let mut scope = both(left.scope.clone(), right.scope.clone());
            on.push(self.condition(&mut scope, 1));
        }
        if self.percent(30) {
            on.reverse();
        }
        let on = on.join(" AND ");
        let nested = right.sql.contains(" JOIN ") && !right.sql.starts_with('(');
        let right_sql = if nested { format!("({})", right.sql) } else { right.sql };
        let sql = format!("{} {kind} {right_sql} ON {on}", left.sql);
        self.note(kind, &sql);
        self.note("ON", &on);
        let scope = match kind {
            "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => left.scope,
            "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN" => right.scope,
            _ => both(left.scope, right.scope),
        };
        Source { sql, scope, rows }
    }

    // ---- Aggregates and windows

    fn aggregate(&mut self, scope: &mut Scope, depth: usize) -> (String, Kind) {
        let depth = depth.min(2);
        let (aggregate, kind) = match self.random.below(14) {
            0..3 => (format!("max({})", self.number(scope, depth)), Kind::Score),
            3..5 => (format!("min({})", self.number(scope, depth)), Kind::Score),
            5 => (format!("count({})", self.number(scope, depth)), Kind::Score),
            6 => (format!("count(DISTINCT {})", self.number(scope, depth)), Kind::Score),
            7 => (format!("sum({})", self.number(scope, depth)), Kind::Other),
            8 => (format!("avg({})", self.number(scope, depth)), Kind::Other),
            9 => (format!("bool_or({})", self.condition(scope, depth)), Kind::Other),
            10 => ("count(*)".to_owned(), Kind::Score),
            11 => (format!("sum(DISTINCT {})", self.number(scope, depth)), Kind::Other),
            function => match scope.key.clone() {
                None => ("count(*)".to_owned(), Kind::Score),
                Some(key) => {
                    let (value, by) = (self.number(scope, depth), self.number(scope, depth));
                    let by = format!("{value} ORDER BY {by}, {}", key.join(", "));
                    self.note("ordered aggregate", &by);
                    if function == 12 {
                        (format!("first_value({by})"), Kind::Score)
                    } else {
                        (format!("array_agg({by})"), Kind::Other)
                    }
                }
            },
        };
        if self.percent(30) {
            let condition = if self.percent(60) { self.condition(scope, 1) } else { self.cheap(scope) };
            return (format!("{aggregate} FILTER (WHERE {condition})"), kind);
        }
        (aggregate, kind)
    }

    /// `row_number()` in a complete order.
    fn place(&mut self, scope: &mut Scope, depth: usize) -> String {
        let partition = self.partition(scope, depth);
        let by = self.number(scope, depth);
        let direction = self.pick(&["", " DESC", " DESC NULLS LAST", " NULLS FIRST"]);
        let key = scope.key.clone().unwrap_or_default().join(", ");
        format!("row_number() OVER ({partition}ORDER BY {by}{direction}, {key})")
    }

    fn partition(&mut self, scope: &mut Scope, depth: usize) -> String {
        match self.random.below(10) {
            0..3 => String::new(),
            3..7 => format!("PARTITION BY {} ", self.cheap_value(scope)),
            7 => format!("PARTITION BY {} ", self.condition(scope, depth.min(1))),
            _ => format!("PARTITION BY {} ", self.number(scope, depth.min(1))),
        }
    }

    fn window(&mut self, scope: &mut Scope, depth: usize) -> (String, Kind) {
        let depth = depth.min(2);
        let partition = self.partition(scope, depth);
        let value = self.number(scope, depth);
        let Some(key) = scope.key.clone() else {
            return match self.random.below(3) {
                0 => (format!("rank() OVER ({partition}ORDER BY {value})"), Kind::Score),
                1 => (format!("max({value}) OVER ({partition})"), Kind::Score),
                _ => (format!("count({value}) OVER ({partition})"), Kind::Score),
            };
        };
        let key = key.join(", ");
        let by = self.number(scope, depth);
        match self.random.below(11) {
            0 => (self.place(scope, depth), Kind::Score),
            1 => (format!("rank() OVER ({partition}ORDER BY {by} DESC)"), Kind::Score),
            2 => (format!("dense_rank() OVER ({partition}ORDER BY {by})"), Kind::Score),
            3 => (format!("max({value}) OVER ({partition})"), Kind::Score),
            4 => (format!("sum({value}) OVER ({partition}ORDER BY {key})"), Kind::Other),
            5 => (format!("lag({value}) OVER ({partition}ORDER BY {key})"), Kind::Score),
            6 => (format!("first_value({value}) OVER ({partition}ORDER BY {by}, {key})"), Kind::Score),
            7 => (
                format!("min({value}) OVER ({partition}ORDER BY {by}, {key} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"),
                Kind::Score,
            ),
            8 => {
                let texts = scope.of(Kind::Text);
                if texts.is_empty() {
                    return (format!("count(*) OVER ({partition})"), Kind::Score);
                }
                let (query, passage) = (self.pick(&texts), self.pick(&texts));
                (format!("⟨0 {query}, first_value({passage}) OVER ({partition}ORDER BY {key}) 0⟩"), Kind::Score)
            }
            _ => {
                let condition = self.condition(scope, 1);
                let sql = format!("max({value}) FILTER (WHERE {condition}) OVER ({partition})");
                self.note("window FILTER", &sql);
                (sql, Kind::Score)
            }
        }
    }

    // ---- Expressions

    fn cheap_value(&mut self, scope: &Scope) -> String {
        let columns: Vec<&Column> = scope.columns.iter().filter(|column| column.kind != Kind::Other).collect();
        if columns.is_empty() { "1 + 1".to_owned() } else { self.random.pick(&columns).sql.clone() }
    }

    fn level(&mut self, variant: usize) -> String {
        let levels = self.levels;
        format!("{:.4}", self.random.pick(&levels[variant]))
    }

    /// A call of a variant that returns this, and the number of the variant.
    fn call(&mut self, scope: &mut Scope, returns: Returns, depth: usize) -> (usize, String) {
        let again: Vec<(usize, String)> =
            scope.calls.iter().filter(|(variant, _)| VARIANTS[*variant].returns == returns).cloned().collect();
        if !again.is_empty() && self.percent(45) {
            return self.pick(&again);
        }
        let variants: Vec<usize> = (0..VARIANTS.len()).filter(|number| VARIANTS[*number].returns == returns).collect();
        // Most calls are of the first variant, so that some are the same.
        let variant = if self.percent(65) { variants[0] } else { self.pick(&variants) };
        let texts = scope.of(Kind::Text);
        let (query, passage) = if texts.len() >= 2 && self.percent(60) {
            let first = self.random.below(texts.len() - 1);
            (texts[first].clone(), texts[first + 1].clone())
        } else {
            (self.text(scope, depth), self.text(scope, depth))
        };
        let call = format!("⟨{variant} {query}, {passage} {variant}⟩");
        scope.calls.push((variant, call.clone()));
        (variant, call)
    }

    fn details(&mut self, scope: &mut Scope, depth: usize) -> String {
        self.call(scope, Returns::Details, depth).1
    }

    /// A call that is a number, and its variant.
    fn score(&mut self, scope: &mut Scope, depth: usize) -> (usize, String) {
        match self.random.below(100) {
            0..78 => self.call(scope, Returns::Score, depth),
            78..92 => {
                let (variant, call) = self.call(scope, Returns::Details, depth);
                self.constructs.insert("details");
                (variant, format!("{call}['score']"))
            }
            _ => {
                let (variant, call) = self.call(scope, Returns::List, depth);
                self.constructs.insert("list");
                (variant, format!("{call}[1]"))
            }
        }
    }

    fn text(&mut self, scope: &mut Scope, depth: usize) -> String {
        let texts = scope.of(Kind::Text);
        let column = if texts.is_empty() { self.pick(&TEXTS).to_owned() } else { self.pick(&texts) };
        if self.percent(40) {
            return column;
        }
        let deeper = depth.saturating_sub(1);
        let ints = scope.of(Kind::Int);
        match self.random.below(if depth == 0 { 7 } else { 15 }) {
            0 => self.pick(&TEXTS).to_owned(),
            1 => format!("upper({column})"),
            2 => format!("{column} || '!'"),
            3 => format!("substr({column}, 1, {})", 1 + self.random.below(9)),
            4 => format!("CASE WHEN {} THEN {column} END", self.cheap(scope)),
            5 => format!(
                "arrow_cast({column}, '{}')",
                self.pick(&["LargeUtf8", "Utf8View", "Utf8", "Dictionary(Int32, Utf8)"])
            ),
            6 => format!("nullif({column}, {})", self.pick(&TEXTS)),
            7 => format!("coalesce({column}, {})", self.text(scope, deeper)),
            8 => {
                let sql = format!(
                    "CASE WHEN {} THEN {column} ELSE {} END",
                    self.condition(scope, deeper),
                    self.text(scope, deeper)
                );
                self.note("CASE in an argument", &sql);
                sql
            }
            9 if !ints.is_empty() => {
                let int = self.pick(&ints);
                format!("CASE WHEN {int} > 0 THEN substr({column}, 1, 20 / {int}) END")
            }
            10 | 11 => {
                let (_, call) = self.score(scope, deeper);
                self.constructs.insert("nested call");
                format!("'score ' || CAST(round({call}) AS VARCHAR)")
            }
            12 if !ints.is_empty() => format!("CAST({} AS VARCHAR)", self.pick(&ints)),
            13 => format!("CASE WHEN {} THEN {} END", self.cheap(scope), self.text(scope, deeper)),
            _ => {
                let alias = self.name("x");
                format!("(SELECT max({alias}.q) FROM u AS {alias})")
            }
        }
    }

    fn number(&mut self, scope: &mut Scope, depth: usize) -> String {
        let (_, score) = self.score(scope, depth);
        if depth == 0 {
            return match self.random.below(6) {
                0 => format!("round({score})"),
                1 => format!("-{score}"),
                _ => score,
            };
        }
        let deeper = depth - 1;
        let ints = scope.of(Kind::Int);
        let numbers = scope.of(Kind::Score);
        match self.random.below(32) {
            0..7 => score,
            7 => format!("round({score})"),
            8 => format!("({score} + {})", self.number(scope, deeper)),
            9 => format!("{score} * 2 - 1"),
            10 if !ints.is_empty() => format!("({score} - {})", self.pick(&ints)),
            11 => format!("abs({score})"),
            12 | 13 => {
                let (condition, otherwise) = (self.condition(scope, deeper), self.number(scope, deeper));
                let sql = match self.random.below(4) {
                    0 => format!("CASE WHEN {condition} THEN {score} END"),
                    1 => format!("CASE WHEN {condition} THEN {score} ELSE {otherwise} END"),
                    2 => format!("CASE WHEN {condition} THEN {otherwise} ELSE 0 END"),
                    _ => format!(
                        "CASE WHEN {condition} THEN {score} WHEN {} THEN {otherwise} ELSE {} END",
                        self.condition(scope, deeper),
                        self.number(scope, deeper)
                    ),
                };
                self.note("CASE", &sql);
                sql
            }
            14 => {
                let sql = format!("CASE WHEN {} THEN {score} END", self.cheap(scope));
                self.note("CASE", &sql);
                sql
            }
            15 => {
                let langs = scope.of(Kind::Lang);
                let Some(lang) = langs.first() else { return score };
                let sql = format!(
                    "CASE {lang} WHEN 'en' THEN {score} WHEN 'de' THEN {} ELSE {} END",
                    self.number(scope, deeper),
                    self.pick(&["0", "NULL"])
                );
                self.note("CASE", &sql);
                sql
            }
            16 => {
                let sql = format!("coalesce({score}, {})", self.number(scope, deeper));
                self.note("coalesce", &sql);
                sql
            }
            17 if !ints.is_empty() => {
                let sql = format!("coalesce(nullif({}, 3), {score})", self.pick(&ints));
                self.note("coalesce", &sql);
                sql
            }
            18 => {
                let sql = format!("nullif(round({score}), {})", self.random.below(3));
                self.note("nullif", &sql);
                sql
            }
            19 | 20 if !ints.is_empty() => {
                let int = self.pick(&ints);
                let sql = match self.random.below(3) {
                    0 => format!("CASE WHEN {int} <> 0 THEN {score} + 10 / {int} END"),
                    1 => format!("CASE WHEN {int} <> 0 THEN 10 / {int} ELSE {score} END"),
                    _ => format!(
                        "CASE WHEN {int} = 0 THEN {score} WHEN 10 / {int} > 2 THEN {} END",
                        self.number(scope, deeper)
                    ),
                };
                self.note("guarded division", &sql);
                sql
            }
            21 => {
                let langs = scope.of(Kind::Lang);
                let texts = scope.columns.iter().filter(|column| column.sql.ends_with(".p"));
                let texts: Vec<String> = texts.map(|column| column.sql.clone()).collect();
                let (Some(passage), Some(alias)) =
                    (texts.first(), texts.first().and_then(|text| text.strip_suffix(".p")))
                else {
                    return score;
                };
                let own = format!("{alias}.lang");
                if !langs.contains(&own) {
                    return score;
                }
                let number = format!("CAST({passage} AS INT)");
                let sql = if self.percent(50) {
                    format!("CASE WHEN {own} = 'num' THEN {score} + {number} END")
                } else {
                    format!(
                        "CASE WHEN {own} = 'num' THEN ⟨0 {passage}, CAST({number} + 1 AS VARCHAR) 0⟩ ELSE {score} END"
                    )
                };
                self.note("guarded CAST", &sql);
                sql
            }
            22 => {
                let sql = format!("{}({score}, {})", self.pick(&["greatest", "least"]), self.number(scope, deeper));
                self.note("greatest", &sql);
                sql
            }
            23 => {
                let sql = format!("make_array({score}, {})[{}]", self.number(scope, deeper), 1 + self.random.below(2));
                self.note("make_array", &sql);
                sql
            }
            24 => self.scalar_subquery(scope, deeper),
            25 => format!("CAST({score} AS DOUBLE)"),
            26 => {
                self.constructs.insert("details");
                let details = self.details(scope, deeper);
                format!("{details}['{}']", self.pick(&["query_tokens", "passage_tokens"]))
            }
            27 => format!("named_struct('a', {score}, 'b', 1)['a']"),
            28..31 if !numbers.is_empty() => {
                let number = self.pick(&numbers);
                if self.percent(50) { number } else { format!("({number} + {score})") }
            }
            _ => score,
        }
    }

    /// The largest score of the rows of another table, or of those that belong to a row.
    fn scalar_subquery(&mut self, scope: &mut Scope, depth: usize) -> String {
        let alias = self.name("x");
        let mut inner = table_scope(&alias);
        let table = self.pick(&["u", "um", "t"]);
        let ints = scope.of(Kind::Int);
        let mut conditions = Vec::new();
        let correlated = self.subqueries && !ints.is_empty() && self.percent(50);
        if correlated {
            conditions.push(format!("{alias}.{} = {}", self.pick(&["id", "pid"]), self.pick(&ints)));
        }
        if self.percent(50) {
            conditions.push(self.condition(&mut inner, depth));
        }
        let mut value = self.number(&mut inner, depth);
        if correlated && self.percent(10) {
            let texts = scope.of(Kind::Text);
            if !texts.is_empty() {
                value = format!("⟨0 {}, {alias}.p 0⟩", self.pick(&texts));
            }
        }
        let mut filter = String::new();
        if !conditions.is_empty() {
            filter = format!(" WHERE {}", conditions.join(" AND "));
        }
        let aggregate = self.pick(&["max", "min", "count"]);
        let sql = format!("(SELECT {aggregate}({value}) FROM {table} AS {alias}{filter})");
        self.note(if correlated { "correlated scalar subquery" } else { "scalar subquery" }, &sql);
        sql
    }

    /// A condition without calls.
    fn cheap(&mut self, scope: &Scope) -> String {
        let column = self.random.pick(&scope.columns).clone();
        let sql = column.sql;
        match (column.kind, self.random.below(5)) {
            (_, 4) if self.percent(70) => format!("{sql} IS {}NULL", self.pick(&["", "NOT "])),
            (_, 4) => "random() >= 0".to_owned(),
            (Kind::Int, 0) => format!("{sql} % 3 = {}", self.random.below(3)),
            (Kind::Int, 1) => format!("{sql} IN (1, 2, 3, 5, 8, 13)"),
            (Kind::Int, _) => format!("{sql} {} {}", self.pick(&["<", ">", "<>", ">="]), self.random.below(20)),
            (Kind::Bool, 0) => format!("NOT {sql}"),
            (Kind::Bool, 1) => format!("{sql} IS NOT TRUE"),
            (Kind::Bool, _) => sql,
            (Kind::Lang, 0) => format!("{sql} IN ('en', 'de')"),
            (Kind::Lang, 1) => format!("{sql} <> 'en'"),
            (Kind::Lang, _) => format!("{sql} = {}", self.pick(&["'en'", "'de'", "'num'"])),
            (Kind::Text, 0) => format!("{sql} LIKE '%a%'"),
            (Kind::Text, _) => format!("length({sql}) > {}", self.random.below(12)),
            (Kind::Score, _) => format!("{sql} > {}", self.level(0)),
            (Kind::Other, _) => format!("{sql} IS NOT NULL"),
        }
    }

    fn condition(&mut self, scope: &mut Scope, depth: usize) -> String {
        let (variant, score) = self.score(scope, depth);
        let level = self.level(variant);
        let compared = format!("{score} {} {level}", self.pick(&[">", "<=", ">=", "<"]));
        if depth == 0 {
            return compared;
        }
        let deeper = depth - 1;
        match self.random.below(32) {
            0..6 => compared,
            6 => {
                let sql = format!("{score} IS {}NULL", self.pick(&["", "NOT "]));
                self.note("IS NULL", &sql);
                sql
            }
            7 => format!("{score} BETWEEN {level} AND {}", self.level(variant)),
            8 => {
                let sql = format!("round({score}) {}IN (0, 1, 2)", self.pick(&["", "NOT "]));
                self.note("IN list", &sql);
                sql
            }
            9 => {
                let details = self.details(scope, depth);
                self.constructs.insert("details");
                match self.random.below(3) {
                    0 => format!("{details} IS NULL"),
                    1 => format!("{details}['score'] IS NULL"),
                    _ => format!("{details}['truncated']"),
                }
            }
            10 => format!("{score} {} {}", self.pick(&["=", "<", ">="]), self.number(scope, deeper)),
            11..16 => {
                let mut operands = vec![self.condition(scope, deeper), compared];
                for _ in 0..self.random.below(3) {
                    operands.push(if self.percent(70) { self.cheap(scope) } else { self.condition(scope, deeper) });
                }
                let rotation = self.random.below(operands.len());
                operands.rotate_left(rotation);
                let junction = self.pick(&["AND", "OR"]);
                let sql = format!("({})", operands.join(&format!(" {junction} ")));
                self.note(junction, &sql);
                sql
            }
            16 | 17 => {
                let cheap = self.cheap(scope);
                let junction = self.pick(&["AND", "OR"]);
                let sql = if self.percent(50) {
                    format!("({compared} {junction} {cheap})")
                } else {
                    format!("({cheap} {junction} {compared})")
                };
                self.note(junction, &sql);
                sql
            }
            18 => format!("NOT {}", self.condition(scope, deeper)),
            19 => format!(
                "({}) IS {}",
                self.condition(scope, deeper),
                self.pick(&["NULL", "TRUE", "NOT TRUE", "NOT FALSE", "NOT NULL", "UNKNOWN"])
            ),
            20 => {
                let sql = format!("CASE WHEN {} THEN {compared} ELSE {} END", self.cheap(scope), self.cheap(scope));
                self.note("CASE", &sql);
                sql
            }
            21 => {
                let sql = format!("coalesce({compared}, {})", self.cheap(scope));
                self.note("coalesce", &sql);
                sql
            }
            22 => {
                let mut sql = self.scalar_subquery(scope, deeper);
                sql = format!("{score} {} {sql}", self.pick(&["=", "<", ">="]));
                sql
            }
            23..27 if self.subqueries => self.membership(scope, deeper),
            27 => {
                let bools = scope.of(Kind::Bool);
                if bools.is_empty() { compared } else { format!("{} = ({compared})", self.pick(&bools)) }
            }
            _ => format!("{} > {level}", self.number(scope, deeper)),
        }
    }

    /// EXISTS, IN and their opposites.
    fn membership(&mut self, scope: &mut Scope, depth: usize) -> String {
        let alias = self.name("x");
        let mut inner = table_scope(&alias);
        let table = self.pick(&["u", "um", "t", "tm"]);
        let mut conditions = Vec::new();
        if self.percent(75) {
            conditions.push(self.condition(&mut inner, depth));
        }
        let not = self.pick(&["", "NOT "]);
        let ints = scope.of(Kind::Int);
        if !ints.is_empty() && self.percent(55) {
            let link = format!("{alias}.{} = {}", self.pick(&["id", "pid"]), self.pick(&ints));
            conditions.push(link);
            if self.percent(3) {
                let mut all = scope.clone();
                all.columns.extend(inner.columns.clone());
                conditions.push(self.condition(&mut all, 0));
            }
            let sql = format!("{not}EXISTS (SELECT 1 FROM {table} AS {alias} WHERE {})", conditions.join(" AND "));
            self.note(if not.is_empty() { "EXISTS" } else { "NOT EXISTS" }, &sql);
            return sql;
        }
        let (value, list) = if ints.is_empty() || self.percent(35) {
            (self.score(scope, depth).1, self.score(&mut inner, depth).1)
        } else {
            (self.pick(&ints), format!("{alias}.{}", self.pick(&["id", "pid", "v"])))
        };
        let mut filter = String::new();
        if !conditions.is_empty() {
            filter = format!(" WHERE {}", conditions.join(" AND "));
        }
        let sql = format!("{value} {not}IN (SELECT {list} FROM {table} AS {alias}{filter})");
        self.note(if not.is_empty() { "IN subquery" } else { "NOT IN subquery" }, &sql);
        sql
    }
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
