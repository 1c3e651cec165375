//! Text in columns that fits the terminal.

use std::fmt;
use std::io;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Width, presets};
use ringlift::OneLine;

/// A table with a header. Each column is as wide as its widest cell, or less if the terminal is too narrow.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    align: [Align; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

/// Alignment of the cells of a column, and the end at which they are cut on a narrow terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// To the left, never cut.
    Left,
    /// To the right, never cut.
    Right,
    /// To the left, and cut at the end.
    Text,
    /// To the left, and cut at the beginning, because the end of a path says more.
    Path,
    /// To the left, and left out of a table that does not fit.
    Spare,
}

impl Align {
    fn is_flexible(self) -> bool {
        matches!(self, Align::Text | Align::Path)
    }
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(columns: [(&str, Align); COLUMNS]) -> Table<COLUMNS> {
        Table {
            align: columns.map(|(_, align)| align),
            rows: vec![columns.map(|(title, _)| title.to_owned())],
        }
    }

    /// Returns `true` if the table has no row but its header.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        // A line feed in a cell would start another row.
        self.rows.push(cells.map(|cell| OneLine(&cell).to_string()));
    }

    /// Returns the rows without a trailing line feed. `terminal` is the width to fit, if there is one.
    fn text(&self, terminal: Option<u16>) -> String {
        let widths = terminal.and_then(|terminal| self.fitting_widths(terminal));
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_truncation_indicator(CUT);
        for cells in &self.rows {
            let cell = |(index, cell): (usize, &String)| match widths {
                Some(widths) if self.align[index] == Align::Path => cut_beginning(cell, widths[index]),
                _ => cell.clone(),
            };
            let mut row = Row::from(cells.iter().enumerate().map(cell).collect::<Vec<_>>());
            // A row is one line for head(1) and grep(1), however long its cells are.
            row.max_height(1);
            table.add_row(row);
        }
        if widths.is_some() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            // The constraints limit the columns. This width only must not be the narrower one.
            table.set_width(u16::MAX);
        }
        self.lay_out_columns(&mut table, widths);
        table.trim_fmt()
    }

    /// Sets the gap, the alignment and the width of each column.
    fn lay_out_columns(&self, table: &mut comfy_table::Table, widths: Option<[u16; COLUMNS]>) {
        for (index, column) in table.column_iter_mut().enumerate() {
            let gap = if index + 1 < COLUMNS { GAP } else { 0 };
            column.set_padding((0, gap));
            if self.align[index] == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if let Some(widths) = widths {
                column.set_constraint(match self.align[index] {
                    Align::Spare => ColumnConstraint::Hidden,
                    _ => ColumnConstraint::Absolute(Width::Fixed(widths[index] + gap)),
                });
            }
        }
    }

    /// Returns the width of each column so that a row fits, or `None` if nothing has to be or can be cut.
    fn fitting_widths(&self, terminal: u16) -> Option<[u16; COLUMNS]> {
        let mut widths: [u16; COLUMNS] = std::array::from_fn(|column| {
            self.rows.iter().map(|row| display_width(&row[column])).max().unwrap_or(0)
        });
        let taken = |widths: &[u16; COLUMNS], is_spared: bool| {
            let shown = (0..COLUMNS).filter(|column| !is_spared || self.align[*column] != Align::Spare);
            let sum = shown.map(|column| widths[column].saturating_add(GAP)).fold(0, u16::saturating_add);
            sum.saturating_sub(GAP)
        };
        if taken(&widths, false) <= terminal {
            return None;
        }
        // The widest flexible column gives way, one step at a time, so that narrow ones stay whole.
        while taken(&widths, true) > terminal {
            let flexible = (0..COLUMNS).filter(|column| self.align[*column].is_flexible());
            let widest = flexible.max_by_key(|column| widths[*column])?;
            if widths[widest] <= NARROWEST {
                return None;
            }
            widths[widest] -= 1;
        }
        Some(widths)
    }
}

/// Writes the rows without a trailing line feed, fitted to standard output if it is a terminal.
impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(terminal_width()))
    }
}

/// Returns the width of standard output, or `None` if it is not a terminal.
fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A serial console reports 0.
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Returns the number of terminal cells that a text takes; ideographs take two.
fn display_width(text: &str) -> u16 {
    let mut table = comfy_table::Table::new();
    table.add_row([text]);
    table.column_max_content_widths().first().copied().unwrap_or(0)
}

/// Returns the end of a text that fits, after a mark if the beginning is missing.
fn cut_beginning(text: &str, width: u16) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let starts = text.char_indices().map(|(start, _)| start);
    let fits = |start: &usize| display_width(&text[*start..]) < width;
    let start = starts.skip(1).find(fits).unwrap_or(text.len());
    format!("{CUT}{}", &text[start..])
}

/// Stands for the part of a cell that was cut.
const CUT: &str = "\u{2026}";

/// Cells between two columns.
const GAP: u16 = 2;

/// A column narrower than this says nothing. A table that does not fit then wraps.
const NARROWEST: u16 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("way", Align::Left), ("GiB/s", Align::Right)]);
        table.row(["single".to_owned(), "1.5".to_owned()]);
        table.row(["parts".to_owned(), "10.25".to_owned()]);
        assert_eq!(table.text(None), "way     GiB/s\nsingle    1.5\nparts   10.25");
        assert_eq!(table.text(Some(80)), table.text(None));
    }

    #[test]
    fn cells_have_no_line_feeds_and_no_control_characters() {
        let mut table = Table::new([("TITLE", Align::Left)]);
        table.row(["a\nb\u{1b}[31m".to_owned()]);
        assert_eq!(table.text(None), "TITLE\na\u{fffd}b\u{fffd}[31m");
    }

    #[test]
    fn a_narrow_terminal_cuts_titles_at_the_end_and_paths_at_the_beginning() {
        let mut table = Table::new([("FILE", Align::Path), ("ID", Align::Left), ("TITLE", Align::Text)]);
        table.row(["/films/2024/summer.mp4".into(), "vi1234567890".into(), "A summer by the sea".into()]);
        let lines: Vec<String> = table.text(Some(40)).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("\u{2026}"), "{lines:?}");
        assert!(lines[1].contains("summer.mp4  vi1234567890  A "), "{lines:?}");
        assert!(lines.iter().all(|line| display_width(line) <= 40), "{lines:?}");
    }

    #[test]
    fn a_spare_column_is_left_out_first() {
        let mut table = Table::new([("TITLE", Align::Text), ("PLACE", Align::Spare)]);
        table.row(["A summer by the sea".into(), "somewhere".into()]);
        assert_eq!(table.text(Some(30)), table.text(None));
        assert_eq!(table.text(Some(29)), "TITLE\nA summer by the sea");
    }

    #[test]
    fn ideographs_take_two_cells() {
        let mut table = Table::new([("TITLE", Align::Text), ("N", Align::Right)]);
        table.row(["\u{590f}\u{306e}\u{6d77}".into(), "1".into()]);
        table.row(["abcdef".into(), "22".into()]);
        assert_eq!(table.text(None), "TITLE    N\n\u{590f}\u{306e}\u{6d77}   1\nabcdef  22");
    }

    proptest! {
        #[test]
        fn a_table_with_room_for_its_fixed_columns_never_wraps(
            path in "[a-z/\u{590f}\u{6d77}]{0,60}",
            title in "[a-z \u{590f}\u{6d77}]{0,60}",
            terminal in 40u16..120,
        ) {
            let mut table = Table::new([("FILE", Align::Path), ("ID", Align::Left), ("TITLE", Align::Text)]);
            table.row([path, "vi12345678".into(), title]);
            let text = table.text(Some(terminal));
            prop_assert_eq!(text.lines().count(), 2, "{}", text);
            prop_assert!(text.lines().all(|line| display_width(line) <= terminal), "{}", text);
        }
    }
}
