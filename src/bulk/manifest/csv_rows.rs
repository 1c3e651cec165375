//! CSV: rows, the header, and the values of cells.

use serde_json::Value;

use super::error::LineFlaw;
use super::line_reader::{LineReader, MAX_LINE_BYTES};
use crate::bulk::entry::{EntryBuilder, EntryFlaw, shown};

/// The rows of a CSV file with a header.
#[derive(Debug, Default)]
pub(super) struct CsvRows {
    header: Option<Header>,
    row: Vec<u8>,
    cells: csv::ByteRecord,
}

#[derive(Debug)]
struct Header {
    separator: u8,
    columns: Vec<String>,
}

/// A row that has been read into [`CsvRows`].
#[derive(Debug)]
pub(super) enum Row {
    Header,
    Cells,
}

/// The place of a byte within the row, after RFC 4180.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// After a quotation mark within a quoted field: its end, or the first half of a doubled one.
    MaybeEnd,
}

impl CsvRows {
    /// Reads the rest of the row that begins in the line of `lines`. A header that comes again is a header.
    pub(super) fn read(&mut self, lines: &mut LineReader) -> Result<Row, LineFlaw> {
        let separator = match &self.header {
            Some(header) => header.separator,
            None => separator_of(lines.line()),
        };
        self.read_row(lines, separator)?;
        self.split(separator)?;
        let Some(header) = &self.header else {
            self.header = Some(Header { separator, columns: columns(&self.cells)? });
            return Ok(Row::Header);
        };
        // Reports that were joined to one file have headers in the middle.
        let is_header = self.cells.len() == header.columns.len()
            && self.cells.iter().zip(&header.columns).all(|(cell, column)| column_name(cell) == *column);
        Ok(if is_header { Row::Header } else { Row::Cells })
    }

    /// Returns `true` if the file has a header that can be used.
    pub(super) fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// Returns the job of the row.
    pub(super) fn builder(&self) -> Result<EntryBuilder, LineFlaw> {
        let columns = self.header.as_ref().map_or(&[][..], |header| &header.columns);
        // Spreadsheets add empty cells to the right.
        let has_more = self.cells.iter().skip(columns.len()).any(|cell| !cell.is_empty());
        if self.cells.len() < columns.len() || has_more {
            return Err(LineFlaw::Ragged { found: self.cells.len(), expected: columns.len() });
        }
        let mut builder = EntryBuilder::default();
        for (column, cell) in columns.iter().zip(&self.cells) {
            // An empty cell leaves its key unset.
            if cell.is_empty() || column.is_empty() || column.starts_with("x-") {
                continue;
            }
            let cell =
                str::from_utf8(cell).map_err(|error| LineFlaw::NotUtf8 { byte: error.valid_up_to() + 1 })?;
            builder.set(column, value(column, cell))?;
        }
        Ok(builder)
    }

    fn read_row(&mut self, lines: &mut LineReader, separator: u8) -> Result<(), LineFlaw> {
        self.row.clear();
        let mut place = Place::FieldStart;
        loop {
            if lines.is_too_long() {
                return Err(LineFlaw::TooLong);
            }
            self.row.extend_from_slice(lines.line());
            place = lines.line().iter().fold(place, |place, byte| place.after(*byte, separator));
            if place != Place::Quoted {
                return Ok(());
            }
            self.row.push(b'\n');
            // Without this bound one stray quotation mark would read the whole file into memory.
            if self.row.len() > MAX_LINE_BYTES || !lines.is_ended() || !lines.advance()? {
                return Err(LineFlaw::OpenQuote { last_line: lines.number() });
            }
        }
    }

    fn split(&mut self, separator: u8) -> Result<(), LineFlaw> {
        if self.row.ends_with(b"\r") {
            self.row.pop();
        }
        self.cells.clear();
        // A reader for each row costs several times the row itself.
        if !self.row.contains(&b'"') {
            self.row.split(|byte| *byte == separator).for_each(|cell| self.cells.push_field(cell));
            return Ok(());
        }
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            // The number of cells is checked by `builder`, with an error that names it.
            .flexible(true)
            .delimiter(separator)
            .buffer_capacity(self.row.len().clamp(1, 64 << 10))
            .from_reader(&self.row[..]);
        match reader.read_byte_record(&mut self.cells) {
            Ok(_) => Ok(()),
            Err(error) => Err(LineFlaw::Unreadable(error.into())),
        }
    }
}

impl Place {
    fn after(self, byte: u8, separator: u8) -> Place {
        match (self, byte) {
            (Place::Quoted, b'"') => Place::MaybeEnd,
            (Place::Quoted, _) => Place::Quoted,
            (Place::FieldStart | Place::MaybeEnd, b'"') => Place::Quoted,
            (_, byte) if byte == separator => Place::FieldStart,
            _ => Place::Plain,
        }
    }
}

/// Spreadsheets separate by semicolons where the comma is the decimal mark.
fn separator_of(header: &[u8]) -> u8 {
    [b',', b';', b'\t'].into_iter().find(|separator| header.contains(separator)).unwrap_or(b',')
}

fn columns(cells: &csv::ByteRecord) -> Result<Vec<String>, LineFlaw> {
    let columns: Vec<_> = cells.iter().map(column_name).collect();
    for (i, column) in columns.iter().enumerate() {
        // A column without a name is accepted if it is empty all the way down: spreadsheets add such.
        if !column.is_empty() && !crate::bulk::entry::is_known(column) {
            return Err(EntryFlaw::UnknownKey { key: shown(column) }.into());
        }
        if !column.is_empty() && columns[..i].contains(column) {
            return Err(EntryFlaw::RepeatedKey { key: shown(column) }.into());
        }
    }
    if ["path", "path_bytes", "source_url"].iter().any(|source| columns.iter().any(|column| column == source))
    {
        Ok(columns)
    } else {
        Err(LineFlaw::NoSourceColumn)
    }
}

/// Returns the key of a column. Only the keys of metadata may have capital letters.
fn column_name(cell: &[u8]) -> String {
    let name = String::from_utf8_lossy(cell);
    let name = name.trim();
    match name.get(..METADATA.len()) {
        Some(start) if start.eq_ignore_ascii_case(METADATA) => {
            format!("{METADATA}{}", &name[METADATA.len()..])
        }
        _ => name.to_ascii_lowercase(),
    }
}

/// Returns the JSON value of a cell. A cell that does not fit stays a text, which the check of the key refuses.
fn value(column: &str, cell: &str) -> Value {
    match column {
        "private" | "panoramic" | "mp4" => switch(cell),
        "priority" => cell.trim().parse::<i64>().map_or_else(|_| cell.into(), Value::from),
        "tags" => cell.split(';').map(str::trim).filter(|tag| !tag.is_empty()).collect(),
        _ => cell.into(),
    }
}

fn switch(cell: &str) -> Value {
    match cell.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => true.into(),
        "false" | "no" | "0" => false.into(),
        _ => cell.into(),
    }
}

const METADATA: &str = "metadata.";
