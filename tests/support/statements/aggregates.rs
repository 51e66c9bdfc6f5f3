//! Aggregates and window functions.

use super::{Generator, Kind, Scope};

impl Generator<'_> {
    pub(super) fn aggregate(&mut self, scope: &mut Scope, depth: usize) -> (String, Kind) {
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
    pub(super) fn place(&mut self, scope: &mut Scope, depth: usize) -> String {
        let partition = self.partition(scope, depth);
        let by = self.number(scope, depth);
        let direction = self.pick(&["", " DESC", " DESC NULLS LAST", " NULLS FIRST"]);
        let key = scope.key.clone().unwrap_or_default().join(", ");
        format!("row_number() OVER ({partition}ORDER BY {by}{direction}, {key})")
    }

    pub(super) fn partition(&mut self, scope: &mut Scope, depth: usize) -> String {
        match self.random.below(10) {
            0..3 => String::new(),
            3..7 => format!("PARTITION BY {} ", self.cheap_value(scope)),
            7 => format!("PARTITION BY {} ", self.condition(scope, depth.min(1))),
            _ => format!("PARTITION BY {} ", self.number(scope, depth.min(1))),
        }
    }

    pub(super) fn window(&mut self, scope: &mut Scope, depth: usize) -> (String, Kind) {
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
}
