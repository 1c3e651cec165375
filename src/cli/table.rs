//! Text in columns.

use std::fmt;

use ringlift::error::OneLine;

/// A table with a header. Each column is as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    align: [Align; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

/// Alignment of the cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(columns: [(&str, Align); COLUMNS]) -> Table<COLUMNS> {
        Table {
            align: columns.map(|(_, align)| align),
            rows: vec![columns.map(|(title, _)| title.to_owned())],
        }
    }

    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        // A line feed in a cell would start another row.
        self.rows.push(cells.map(|cell| OneLine(&cell).to_string()));
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    }

    fn line(&self, row: &[String; COLUMNS]) -> String {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = self.width(column);
            line += &match self.align[column] {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            };
        }
        line.trim_end().to_owned()
    }
}

/// Writes the rows without a trailing line feed.
impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.rows.iter().map(|row| self.line(row)).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("way", Align::Left), ("GiB/s", Align::Right)]);
        table.row(["single".to_owned(), "1.5".to_owned()]);
        table.row(["parts".to_owned(), "10.25".to_owned()]);
        assert_eq!(table.to_string(), "way     GiB/s\nsingle    1.5\nparts   10.25");
    }

    #[test]
    fn cells_have_no_line_feeds_and_no_control_characters() {
        let mut table = Table::new([("TITLE", Align::Left)]);
        table.row(["a\nb\u{1b}[31m".to_owned()]);
        assert_eq!(table.to_string(), "TITLE\na\u{fffd}b\u{fffd}[31m");
    }
}
