//! Units of work: the rows that a job scores and commits together.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::files::Group;

/// Consecutive rows of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// 16 hexadecimal digits: a hash of everything that the unit's output depends on. Empty until the job's manifest
    /// sets it.
    pub(crate) id: String,
    /// The index of the file among the inputs.
    pub(crate) input: usize,
    /// The number of the unit within its file.
    pub(crate) number: usize,
    /// The file's groups that hold its rows. The first manifests lack it.
    #[serde(default)]
    pub(crate) groups: Range<usize>,
    /// The number of the first row within the file. The first manifests lack it.
    #[serde(default)]
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
    /// Its bytes in the file.
    pub(crate) bytes: u64,
}

impl Unit {
    /// The path of the unit's data file relative to OUTPUT. The name depends on the content, so an existing file holds
    /// what would be written.
    ///
    /// Its scores, to be spliced into a copy of the input, are a Parquet file among the records, without the extension:
    /// other programs that search OUTPUT for Parquet files must not find it. Encoded rows have the input's path without
    /// its extension, the unit's number and its id.
    pub(crate) fn data_name(&self, input: &str, spliced: bool) -> String {
        if spliced {
            return format!("{RECORDS}/scores/{}", self.id);
        }
        let stem = match input.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() && !stem.ends_with('/') && !extension.contains('/') => stem,
            _ => input,
        };
        format!("{stem}-{:05}-{}.parquet", self.number, self.id)
    }
}

/// The folder of the records of a job, relative to OUTPUT.
pub(super) const RECORDS: &str = "_rerank";

/// Where a file may be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Between any two rows.
    Rows,
    /// Between groups, because the rows of a unit become a file.
    Groups,
}

/// Divides a file into units of at most `unit_rows` rows. Small groups are joined; a larger group is divided too, or is
/// a unit of its own where units consist of groups. A file without rows is one unit, so that it has an output.
///
/// The division depends only on the arguments, so a later run finds the same units.
pub(crate) fn cut(input: usize, groups: &[Group], unit_rows: u64, at: Cut) -> Vec<Unit> {
    let mut units = vec![Unit { input, ..Unit::default() }];
    for (index, group) in groups.iter().enumerate() {
        let mut left = group.rows;
        loop {
            let last = &units[units.len() - 1];
            let full = match at {
                // A group that fits into a unit is not divided.
                Cut::Groups => last.rows > 0 && last.rows + group.rows > unit_rows,
                Cut::Rows => last.rows > 0 && last.rows + left > unit_rows,
            };
            if full {
                let first_row = last.first_row + last.rows;
                units.push(Unit { input, number: units.len(), groups: index..index, first_row, ..Unit::default() });
            }
            let rows = if at == Cut::Rows { left.min(unit_rows) } else { left };
            if let Some(unit) = units.last_mut() {
                unit.groups.end = index + 1;
                unit.rows += rows;
                unit.bytes += bytes_of(group, rows);
            }
            left -= rows;
            if left == 0 {
                break;
            }
        }
    }
    units
}

/// The share of a group's bytes that this many of its rows have.
fn bytes_of(group: &Group, rows: u64) -> u64 {
    if rows == group.rows {
        return group.bytes;
    }
    (u128::from(group.bytes) * u128::from(rows) / u128::from(group.rows.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(rows: &[u64]) -> Vec<Group> {
        rows.iter().map(|&rows| Group { rows, bytes: 10 * rows }).collect()
    }

    /// The groups and first row of each unit.
    fn shape(rows: &[u64], unit_rows: u64) -> Vec<(Range<usize>, u64)> {
        cut(0, &groups(rows), unit_rows, Cut::Groups).into_iter().map(|unit| (unit.groups, unit.first_row)).collect()
    }

    /// The groups, first row and rows of each unit, cut between rows.
    fn shape_of_rows(rows: &[u64], unit_rows: u64) -> Vec<(Range<usize>, u64, u64)> {
        let units = cut(0, &groups(rows), unit_rows, Cut::Rows).into_iter();
        units.map(|unit| (unit.groups, unit.first_row, unit.rows)).collect()
    }

    #[test]
    fn large_groups_are_divided_where_rows_may_be() {
        assert_eq!(shape_of_rows(&[20], 8), [(0..1, 0, 8), (0..1, 8, 8), (0..1, 16, 4)]);
        assert_eq!(shape_of_rows(&[4, 4, 4], 8), [(0..2, 0, 8), (2..3, 8, 4)]);
        assert_eq!(shape_of_rows(&[3, 20, 2], 8), [(0..1, 0, 3), (1..2, 3, 8), (1..2, 11, 8), (1..3, 19, 6)]);
        assert_eq!(shape_of_rows(&[], 8), [(0..0, 0, 0)]);
        assert_eq!(shape_of_rows(&[0, 0], 8), [(0..2, 0, 0)]);
        assert_eq!(shape_of_rows(&[5], u64::MAX), [(0..1, 0, 5)]);
    }

    #[test]
    fn small_groups_are_joined_and_large_ones_stand_alone() {
        assert_eq!(shape(&[4, 4, 4, 4], 8), [(0..2, 0), (2..4, 8)]);
        assert_eq!(shape(&[4, 4, 4], 11), [(0..2, 0), (2..3, 8)]);
        assert_eq!(shape(&[20, 1, 1, 20, 1], 8), [(0..1, 0), (1..3, 20), (3..4, 22), (4..5, 42)]);
        assert_eq!(shape(&[5, 5], 1), [(0..1, 0), (1..2, 5)]);
    }

    #[test]
    fn a_file_without_rows_is_one_unit() {
        assert_eq!(shape(&[], 8), [(0..0, 0)]);
        assert_eq!(shape(&[0, 0], 8), [(0..2, 0)]);
        assert_eq!(shape(&[0, 3, 0], 8), [(0..3, 0)]);
    }

    #[test]
    fn output_names_mirror_input_names() {
        let unit = Unit { id: "0123456789abcdef".into(), number: 1, ..Unit::default() };
        for (input, output) in [
            ("deep/b.parquet", "deep/b-00001-0123456789abcdef.parquet"),
            ("x.y.arrow", "x.y-00001-0123456789abcdef.parquet"),
            ("no extension", "no extension-00001-0123456789abcdef.parquet"),
            ("dir.d/none", "dir.d/none-00001-0123456789abcdef.parquet"),
            (".hidden", ".hidden-00001-0123456789abcdef.parquet"),
        ] {
            assert_eq!(unit.data_name(input, false), output);
        }
        assert_eq!(unit.data_name("a/b.parquet", true), "_rerank/scores/0123456789abcdef");
    }

    #[test]
    fn units_hold_every_row_once_and_in_order() {
        let mut state = 1_u64;
        for _ in 0..200 {
            let mut next = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let rows: Vec<u64> = (0..next(30)).map(|_| next(50)).collect();
            let unit_rows = 1 + next(100);
            for at in [Cut::Rows, Cut::Groups] {
                let units = cut(3, &groups(&rows), unit_rows, at);
                assert_eq!(units[0].groups.start, 0);
                assert_eq!(units.last().unwrap().groups.end, rows.len());
                let mut first_row = 0;
                for (number, unit) in units.iter().enumerate() {
                    assert_eq!((unit.input, unit.number, unit.first_row), (3, number, first_row));
                    let before: u64 = rows[..unit.groups.start].iter().sum();
                    let within: u64 = rows[unit.groups.clone()].iter().sum();
                    assert!(before <= unit.first_row && unit.first_row + unit.rows <= before + within);
                    assert_eq!(unit.bytes, 10 * unit.rows);
                    first_row += unit.rows;
                    let groups = rows[unit.groups.clone()].iter().filter(|rows| **rows > 0).count();
                    assert!(unit.rows <= unit_rows || at == Cut::Groups && groups == 1 && unit.rows == within);
                }
                assert_eq!(first_row, rows.iter().sum::<u64>());
                if at == Cut::Groups {
                    assert!(units.windows(2).all(|pair| pair[0].groups.end == pair[1].groups.start));
                }
            }
        }
    }
}
