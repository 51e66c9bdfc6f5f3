//! SELECT and what combines it.

use super::{Body, Column, Generator, Kind, Query, Scope, Source, both, scope_of};

impl Generator<'_> {
    /// A query. One that is `read` by another has its key among its columns, if it has one.
    pub(super) fn query(&mut self, depth: usize, read: bool) -> Query {
        match self.random.below(if depth == 0 { 50 } else { 100 }) {
            0..50 => self.select(depth, read),
            50..65 => self.aggregated(depth),
            65..75 => self.best_of_each(depth, read),
            75..85 => self.common_table(depth, read),
            _ => self.set_operation(depth),
        }
    }

    pub(super) fn select(&mut self, depth: usize, read: bool) -> Query {
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
    pub(super) fn items(&mut self, scope: &mut Scope, depth: usize, read: bool) -> (Vec<String>, Vec<(String, Kind)>) {
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
                16 => (self.own_text(scope, depth), Kind::Text),
                _ => {
                    let column = self.random.pick(&scope.columns);
                    (column.sql.clone(), column.kind)
                }
            };
            let name = self.name("c");
            items.push(format!("{sql} AS {name}"));
            columns.push((name, kind));
        }
        (items, columns)
    }

    /// Adds the columns of the key, and a query and a passage for the calls of whoever reads the result.
    pub(super) fn with_key(
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

    pub(super) fn plain(&mut self, source: &mut Source, filter: &str, depth: usize, read: bool) -> Body {
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

    pub(super) fn windowed(&mut self, source: &mut Source, filter: &str, depth: usize, read: bool) -> Body {
        let scope = &mut source.scope;
        let (mut items, mut columns) = self.items(scope, depth, read);
        for _ in 0..=self.random.below(2) {
            let (window, kind) = self.window(scope, depth);
            self.note("window", &window);
            let name = self.name("w");
            items.push(format!("{window} AS {name}"));
            columns.push((name, kind));
        }
        let key = self.with_key(scope, read, &mut items, &mut columns);
        let mut qualify = String::new();
        if let (Some(_), true) = (&scope.key, self.percent(20)) {
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

    pub(super) fn distinct(&mut self, source: &mut Source, filter: &str, depth: usize) -> Body {
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

    pub(super) fn distinct_on(&mut self, source: &mut Source, filter: &str, depth: usize) -> Body {
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

    pub(super) fn unnested(&mut self, source: &mut Source, filter: &str, depth: usize) -> Body {
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
    pub(super) fn ordered(&mut self, body: Body, scope: &mut Scope, depth: usize) -> Query {
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

    pub(super) fn aggregated(&mut self, depth: usize) -> Query {
        let mut source = self.source(depth);
        let filter = self.filter(&mut source, depth);
        let scope = &mut source.scope;
        let mut groups: Vec<(String, Kind)> = Vec::new();
        for _ in 0..self.random.below(3) {
            let group = match self.random.below(10) {
                0..3 => (self.number(scope, depth), Kind::Score),
                3 => (self.condition(scope, depth), Kind::Bool),
                4 => (self.own_text(scope, depth), Kind::Text),
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
    pub(super) fn best_of_each(&mut self, depth: usize, read: bool) -> Query {
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

    pub(super) fn common_table(&mut self, depth: usize, read: bool) -> Query {
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

    pub(super) fn set_operation(&mut self, depth: usize) -> Query {
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
                        Kind::Int | Kind::Lang if !columns.is_empty() => self.pick(&columns),
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
}
