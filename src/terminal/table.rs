//! Human-readable tables.

/// Lays out rows in columns, each as wide as its widest cell, two spaces apart.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let rows = [["name", "size"], ["a", "1 B"], ["größer", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(lines(&rows), ["name    size", "a       1 B", "größer"]);
        assert!(lines(&[]).is_empty());
    }
}
