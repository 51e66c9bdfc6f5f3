//! Units of work: the rows that a job scores and commits together.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::files::Group;

/// Consecutive rows of one file: some of its groups, or a part of a large one.
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
    /// The file of the output that it is a piece of; `None` if it is one by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) piece: Option<Piece>,
}

/// The units that score the rows of one output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// The number of the first of them.
    pub(crate) first: usize,
    /// How many there are.
    pub(crate) units: usize,
}

impl Unit {
    /// The path of the file that the unit commits, relative to OUTPUT: an output file, or for a piece of one its
    /// scores.
    ///
    /// Scores are a Parquet file among the records, without the extension: other programs that search OUTPUT for
    /// Parquet files must not find it.
    pub(crate) fn data_name(&self, input: &str) -> String {
        match self.piece {
            Some(_) => format!("{RECORDS}/scores/{}", self.id),
            None => self.output_name(input),
        }
    }

    /// The path of the output file that begins with this unit, relative to OUTPUT: the input's path without its
    /// extension, the unit's number and its id. The name depends on the content, so an existing file holds what would
    /// be written.
    pub(crate) fn output_name(&self, input: &str) -> String {
        let stem = match input.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() && !stem.ends_with('/') && !extension.contains('/') => stem,
            _ => input,
        };
        format!("{stem}-{:05}-{}.parquet", self.number, self.id)
    }

    /// Whether an output file of several units begins with this one.
    pub(crate) fn begins_file(&self) -> bool {
        self.piece.is_some_and(|piece| piece.first == self.number)
    }
}

/// The folder of the records of a job, relative to OUTPUT.
pub(super) const RECORDS: &str = "_rerank";

/// Divides a file into units of at most `unit_rows` rows. Small groups are joined; a larger group is a unit of its own,
/// or is divided too if its output file can be made of `pieces`. A file without rows is one unit, so that it has an
/// output.
///
/// The division depends only on the arguments, so a later run finds the same units.
pub(crate) fn cut(input: usize, groups: &[Group], unit_rows: u64, pieces: bool) -> Vec<Unit> {
    let mut units = vec![Unit { input, ..Unit::default() }];
    for (index, group) in groups.iter().enumerate() {
        let last = &units[units.len() - 1];
        if last.rows > 0 && last.rows + group.rows > unit_rows {
            let first_row = last.first_row + last.rows;
            units.push(Unit { input, number: units.len(), groups: index..index, first_row, ..Unit::default() });
        }
        if let Some(unit) = units.last_mut() {
            unit.groups.end = index + 1;
            unit.rows += group.rows;
            unit.bytes += group.bytes;
        }
    }
    if pieces {
        units.iter().flat_map(|unit| pieces_of(unit, unit_rows)).enumerate().map(numbered).collect()
    } else {
        units
    }
}

/// Divides a unit that is larger than it may be. The numbers of the pieces are relative to its own.
fn pieces_of(unit: &Unit, unit_rows: u64) -> Vec<Unit> {
    let count = unit.rows.div_ceil(unit_rows);
    if count <= 1 {
        return vec![unit.clone()];
    }
    let piece = |number: u64| {
        let first = number * unit_rows;
        let rows = unit_rows.min(unit.rows - first);
        // As many bytes as the share of its rows, without a remainder.
        let bytes_before = |rows: u64| (u128::from(unit.bytes) * u128::from(rows) / u128::from(unit.rows)) as u64;
        Unit {
            first_row: unit.first_row + first,
            rows,
            bytes: bytes_before(first + rows) - bytes_before(first),
            piece: Some(Piece { first: number as usize, units: count as usize }),
            ..unit.clone()
        }
    };
    (0..count).map(piece).collect()
}

/// A unit with its number in the file, given that of a piece within its output file.
fn numbered((number, unit): (usize, Unit)) -> Unit {
    let piece = unit.piece.map(|piece| Piece { first: number - piece.first, ..piece });
    Unit { number, piece, ..unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(rows: &[u64]) -> Vec<Group> {
        rows.iter().map(|&rows| Group { rows, bytes: 10 * rows }).collect()
    }

    /// The groups and first row of each unit.
    fn shape(rows: &[u64], unit_rows: u64) -> Vec<(Range<usize>, u64)> {
        cut(0, &groups(rows), unit_rows, false).into_iter().map(|unit| (unit.groups, unit.first_row)).collect()
    }

    #[test]
    fn large_groups_are_divided_where_their_file_can_be_made_of_pieces() {
        let pieces = |rows: &[u64], unit_rows| {
            let units = cut(0, &groups(rows), unit_rows, true).into_iter();
            let shape = |unit: Unit| {
                let piece = unit.piece.map(|piece| (piece.first, piece.units));
                (unit.number, unit.groups, unit.first_row, unit.rows, piece)
            };
            units.map(shape).collect::<Vec<_>>()
        };
        let of_three = Some((0, 3));
        assert_eq!(
            pieces(&[20], 8),
            [(0, 0..1, 0, 8, of_three), (1, 0..1, 8, 8, of_three), (2, 0..1, 16, 4, of_three)]
        );
        let of_two = Some((1, 2));
        let expected =
            [(0, 0..1, 0, 3, None), (1, 1..2, 3, 8, of_two), (2, 1..2, 11, 1, of_two), (3, 2..4, 12, 4, None)];
        assert_eq!(pieces(&[3, 9, 2, 2], 8), expected);
        assert_eq!(pieces(&[8], 8), [(0, 0..1, 0, 8, None)]);
        assert_eq!(pieces(&[], 8), [(0, 0..0, 0, 0, None)]);
        assert_eq!(pieces(&[5], u64::MAX), [(0, 0..1, 0, 5, None)]);
        let units = cut(0, &[Group { rows: 10, bytes: 7 }], 3, true);
        assert_eq!(units.iter().map(|unit| unit.bytes).collect::<Vec<_>>(), [2, 2, 2, 1]);
        assert_eq!(units.iter().map(Unit::begins_file).collect::<Vec<_>>(), [true, false, false, false]);
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
            assert_eq!((unit.data_name(input), unit.output_name(input)), (output.to_owned(), output.to_owned()));
        }
        let piece = Unit { piece: Some(Piece { first: 1, units: 2 }), ..unit };
        assert_eq!(piece.data_name("a/b.parquet"), "_rerank/scores/0123456789abcdef");
        assert_eq!(piece.output_name("a/b.parquet"), "a/b-00001-0123456789abcdef.parquet");
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
            for pieces in [false, true] {
                let units = cut(3, &groups(&rows), unit_rows, pieces);
                assert_eq!(units[0].groups.start, 0);
                assert_eq!(units.last().unwrap().groups.end, rows.len());
                let mut first_row = 0;
                for (number, unit) in units.iter().enumerate() {
                    assert_eq!((unit.input, unit.number, unit.first_row), (3, number, first_row));
                    let before: u64 = rows[..unit.groups.start].iter().sum();
                    let within: u64 = rows[unit.groups.clone()].iter().sum();
                    assert!(before <= unit.first_row && unit.first_row + unit.rows <= before + within);
                    assert_eq!(unit.bytes, 10 * unit.rows);
                    assert_eq!(unit.piece.is_some(), pieces && within > unit_rows);
                    assert!(unit.piece.is_some() || unit.rows == within);
                    let groups = rows[unit.groups.clone()].iter().filter(|rows| **rows > 0).count();
                    assert!(unit.rows <= unit_rows || !pieces && groups == 1);
                    first_row += unit.rows;
                }
                assert_eq!(first_row, rows.iter().sum::<u64>());
                let follows = |pair: &[Unit]| pair[0].groups.end == pair[1].groups.start;
                assert!(units.windows(2).all(|pair| follows(pair) || pair[0].piece.is_some()));
            }
        }
    }
}
