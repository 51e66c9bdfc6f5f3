//! Texts, numbers and conditions, most of them with calls.

use super::{Column, Generator, Kind, Scope, Shape, TEXTS, table_scope};
use crate::support::stand_ins::{Returns, VARIANTS};

impl Generator<'_> {
    pub(super) fn cheap_value(&mut self, scope: &Scope) -> String {
        let columns: Vec<&Column> = scope.columns.iter().filter(|column| column.kind != Kind::Other).collect();
        if columns.is_empty() { "1 + 1".to_owned() } else { self.random.pick(&columns).sql.clone() }
    }

    pub(super) fn level(&mut self, variant: usize) -> String {
        let levels = self.levels;
        format!("{:.4}", self.random.pick(&levels[variant]))
    }

    /// A call of a variant that returns this, and the number of the variant.
    pub(super) fn call(&mut self, scope: &mut Scope, returns: Returns, depth: usize) -> (usize, String) {
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
        let constant = !scope.columns.iter().any(|column| query.contains(&column.sql) || passage.contains(&column.sql));
        let query = match scope.columns.first() {
            Some(column) if constant && !self.on(Shape::ConstantCall) => format!("CAST({} AS VARCHAR)", column.sql),
            _ => query,
        };
        let call = format!("⟨{variant} {query}, {passage} {variant}⟩");
        scope.calls.push((variant, call.clone()));
        (variant, call)
    }

    pub(super) fn details(&mut self, scope: &mut Scope, depth: usize) -> String {
        self.call(scope, Returns::Details, depth).1
    }

    /// A call that is a number, and its variant.
    pub(super) fn score(&mut self, scope: &mut Scope, depth: usize) -> (usize, String) {
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

    /// A text for a column of a result.
    pub(super) fn own_text(&mut self, scope: &mut Scope, depth: usize) -> String {
        let text = self.text(scope, depth);
        match scope.columns.first() {
            // A call above that reads only constants is a constant call.
            Some(column) if !self.on(Shape::ConstantCall) && !text.contains(&column.sql) => {
                format!("coalesce(CAST({} AS VARCHAR), {text})", column.sql)
            }
            _ => text,
        }
    }

    pub(super) fn text(&mut self, scope: &mut Scope, depth: usize) -> String {
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
                self.noted("CASE in an argument", sql)
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

    pub(super) fn number(&mut self, scope: &mut Scope, depth: usize) -> String {
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
            0 => format!("round({score})"),
            1 => format!("({score} + {})", self.number(scope, deeper)),
            2 => format!("{score} * 2 - 1"),
            3 if !ints.is_empty() => format!("({score} - {})", self.pick(&ints)),
            4 => format!("abs({score})"),
            5..9 => self.branches(&score, scope, deeper),
            9 => {
                let sql = format!("coalesce({score}, {})", self.number(scope, deeper));
                self.noted("coalesce", sql)
            }
            10 if !ints.is_empty() => {
                let sql = format!("coalesce(nullif({}, 3), {score})", self.pick(&ints));
                self.noted("coalesce", sql)
            }
            11 => {
                let sql = format!("nullif(round({score}), {})", self.random.below(3));
                self.noted("nullif", sql)
            }
            12..14 if !ints.is_empty() => {
                let int = self.pick(&ints);
                let sql = match self.random.below(3) {
                    0 => format!("CASE WHEN {int} <> 0 THEN {score} + 10 / {int} END"),
                    1 => format!("CASE WHEN {int} <> 0 THEN 10 / {int} ELSE {score} END"),
                    _ => format!(
                        "CASE WHEN {int} = 0 THEN {score} WHEN 10 / {int} > 2 THEN {} END",
                        self.number(scope, deeper)
                    ),
                };
                self.noted("guarded division", sql)
            }
            14 => self.guarded_cast(score, scope),
            15 => {
                let sql = format!("{}({score}, {})", self.pick(&["greatest", "least"]), self.number(scope, deeper));
                self.noted("greatest", sql)
            }
            16 => {
                let sql = format!("make_array({score}, {})[{}]", self.number(scope, deeper), 1 + self.random.below(2));
                self.noted("make_array", sql)
            }
            17 => self.scalar_subquery(scope, deeper),
            18 => format!("CAST({score} AS DOUBLE)"),
            19 => {
                self.constructs.insert("details");
                let details = self.details(scope, deeper);
                format!("{details}['{}']", self.pick(&["query_tokens", "passage_tokens"]))
            }
            20 => format!("named_struct('a', {score}, 'b', 1)['a']"),
            21..24 if !numbers.is_empty() => {
                let number = self.pick(&numbers);
                if self.percent(50) { number } else { format!("({number} + {score})") }
            }
            _ => score,
        }
    }

    /// A CASE with a score in a branch, and perhaps calls in its conditions.
    pub(super) fn branches(&mut self, score: &str, scope: &mut Scope, depth: usize) -> String {
        let langs = scope.of(Kind::Lang);
        let sql = match (self.random.below(7), langs.first()) {
            (0, Some(lang)) => format!(
                "CASE {lang} WHEN 'en' THEN {score} WHEN 'de' THEN {} ELSE {} END",
                self.number(scope, depth),
                self.pick(&["0", "NULL"])
            ),
            (1, _) => format!("CASE WHEN {} THEN {score} END", self.condition(scope, depth)),
            (2, _) => {
                format!(
                    "CASE WHEN {} THEN {score} ELSE {} END",
                    self.condition(scope, depth),
                    self.number(scope, depth)
                )
            }
            (3, _) => {
                format!("CASE WHEN {} THEN {} ELSE 0 END", self.condition(scope, depth), self.number(scope, depth))
            }
            (4, _) => format!(
                "CASE WHEN {} THEN {score} WHEN {} THEN {} ELSE {} END",
                self.condition(scope, depth),
                self.condition(scope, depth),
                self.number(scope, depth),
                self.number(scope, depth)
            ),
            _ => format!("CASE WHEN {} THEN {score} END", self.cheap(scope)),
        };
        self.noted("CASE", sql)
    }

    /// A CAST in a branch that is taken only where it succeeds: `p` is a number where `lang` says so.
    pub(super) fn guarded_cast(&mut self, score: String, scope: &Scope) -> String {
        let mut tables = scope.columns.iter().filter_map(|column| column.sql.strip_suffix(".lang"));
        let Some(table) = tables.next_back().map(str::to_owned) else { return score };
        if !scope.of(Kind::Text).contains(&format!("{table}.p"))
            || !scope.of(Kind::Int).contains(&format!("{table}.pid"))
        {
            return score;
        }
        let number = format!("CAST({table}.p AS INT)");
        let value = if self.percent(50) || (self.in_on && !self.on(Shape::FailingArgumentInOn)) {
            format!("{score} + {number} END")
        } else {
            let more = if self.on(Shape::FailingArgumentTwice) { 1 } else { self.names };
            self.names += 1;
            format!("⟨0 {table}.p, CAST({number} + {more} AS VARCHAR) 0⟩ ELSE {score} END")
        };
        self.noted("guarded CAST", format!("CASE WHEN {table}.lang = 'num' THEN {value}"))
    }

    /// The largest score of the rows of another table, or of those that belong to a row.
    pub(super) fn scalar_subquery(&mut self, scope: &mut Scope, depth: usize) -> String {
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
    pub(super) fn cheap(&mut self, scope: &Scope) -> String {
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

    pub(super) fn condition(&mut self, scope: &mut Scope, depth: usize) -> String {
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
                self.noted("IS NULL", sql)
            }
            7 => format!("{score} BETWEEN {level} AND {}", self.level(variant)),
            8 => {
                let sql = format!("round({score}) {}IN (0, 1, 2)", self.pick(&["", "NOT "]));
                self.noted("IN list", sql)
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
                self.noted(junction, sql)
            }
            16 | 17 => {
                let cheap = self.cheap(scope);
                let junction = self.pick(&["AND", "OR"]);
                let sql = if self.percent(50) {
                    format!("({compared} {junction} {cheap})")
                } else {
                    format!("({cheap} {junction} {compared})")
                };
                self.noted(junction, sql)
            }
            18 => format!("NOT {}", self.condition(scope, deeper)),
            19 => format!(
                "({}) IS {}",
                self.condition(scope, deeper),
                self.pick(&["NULL", "TRUE", "NOT TRUE", "NOT FALSE", "NOT NULL", "UNKNOWN"])
            ),
            20 => {
                let sql = format!("CASE WHEN {} THEN {compared} ELSE {} END", self.cheap(scope), self.cheap(scope));
                self.noted("CASE", sql)
            }
            21 => {
                let sql = format!("coalesce({compared}, {})", self.cheap(scope));
                self.noted("coalesce", sql)
            }
            22 => {
                let subquery = self.scalar_subquery(scope, deeper);
                format!("{score} {} {subquery}", self.pick(&["=", "<", ">="]))
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
    pub(super) fn membership(&mut self, scope: &mut Scope, depth: usize) -> String {
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
