//! FROM, WHERE and joins.

use super::{Column, Generator, Kind, Scope, Source, both, in_parentheses, scope_of, table_scope};

impl Generator<'_> {
    pub(super) fn filter(&mut self, source: &mut Source, depth: usize) -> String {
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

    pub(super) fn source(&mut self, depth: usize) -> Source {
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

    pub(super) fn table(&mut self) -> Source {
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
    pub(super) fn derived(&mut self, depth: usize) -> Source {
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
    pub(super) fn lateral(&mut self, depth: usize) -> Source {
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

    pub(super) fn join(&mut self, depth: usize) -> Source {
        let mut left = self.source(depth);
        let mut right = if self.percent(60) { self.table() } else { self.source(depth) };
        if left.rows * right.rows <= 700 && self.percent(35) {
            let sql = format!("{} CROSS JOIN {}", left.sql, in_parentheses(right.sql));
            self.note("CROSS JOIN", &sql);
            return Source { sql, scope: both(left.scope, right.scope), rows: left.rows * right.rows };
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
        self.in_on = true;
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
            _ => {
                self.in_on = false;
                return left;
            }
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
        self.in_on = false;
        if self.percent(30) {
            on.reverse();
        }
        let on = on.join(" AND ");
        let sql = format!("{} {kind} {} ON {on}", left.sql, in_parentheses(right.sql));
        self.note(kind, &sql);
        self.note("ON", &on);
        let scope = match kind {
            "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => left.scope,
            "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN" => right.scope,
            _ => both(left.scope, right.scope),
        };
        Source { sql, scope, rows }
    }
}
