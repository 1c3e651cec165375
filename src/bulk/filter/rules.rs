//! The rules of a filter, and its verdicts.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::glob::{Glob, GlobFlaw, units};
use crate::bulk::entry::shown;
use crate::bulk::manifest::LineReader;

/// A filter of files. The default admits every file.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    includes: Vec<Rule>,
    excludes: Vec<Rule>,
    lines: Vec<Rule>,
    /// The smallest length in bytes that is admitted.
    pub min_bytes: Option<u64>,
    /// The largest length in bytes that is admitted.
    pub max_bytes: Option<u64>,
    /// The shortest time since the last write.
    pub min_age: Option<Duration>,
    /// The longest time since the last write.
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Rule {
    is_include: bool,
    /// `true` for an include rule that ends with `/`, which is about folders: it selects no file.
    is_folder: bool,
    text: String,
    glob: Glob,
}

/// A file to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The path relative to the source.
    pub path: &'a Path,
    /// The length in bytes.
    pub bytes: u64,
    /// The time of the last write.
    pub modified: SystemTime,
}

/// The verdict on a file. `rule` is the number of the deciding rule from 0 on, see [`Filter::rule_texts`]; `None` if
/// no rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The file is admitted.
    Admitted {
        /// The deciding rule.
        rule: Option<usize>,
    },
    /// The name is excluded.
    ExcludedByName {
        /// The deciding rule.
        rule: Option<usize>,
    },
    /// The file is too small or too large.
    ExcludedBySize,
    /// The file is too young or too old.
    ExcludedByAge,
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The pattern has a flaw.
    #[error("pattern `{pattern}` {flaw}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The flaw.
        flaw: GlobFlaw,
    },
    /// The line is no rule.
    #[error("`{line}` is no rule; begin it with `+ ` or `- `, or with # for a comment")]
    NoRule {
        /// The line.
        line: String,
    },
    /// The line of a file has a flaw.
    #[error("{file}:{line}: {flaw}")]
    Line {
        /// The name of the file.
        file: String,
        /// The number of the line, from 1.
        line: u64,
        /// The flaw.
        flaw: Box<FilterError>,
    },
    /// There are too many rules.
    #[error("there are more than {MOST_RULES} rules")]
    TooMany,
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// The name of the file.
        file: String,
        /// The cause.
        source: io::Error,
    },
}

impl Filter {
    /// Adds a pattern of files to take.
    ///
    /// # Errors
    /// If the pattern has a flaw, or if there are too many rules.
    pub fn include(mut self, pattern: &str) -> Result<Filter, FilterError> {
        self.includes.push(Rule::new(true, pattern.as_bytes())?);
        self.counted()
    }

    /// Adds a pattern of files to leave out.
    ///
    /// # Errors
    /// If the pattern has a flaw, or if there are too many rules.
    pub fn exclude(mut self, pattern: &str) -> Result<Filter, FilterError> {
        self.excludes.push(Rule::new(false, pattern.as_bytes())?);
        self.counted()
    }

    /// Adds a line of a filter: `+ PATTERN`, `- PATTERN`, `!` to remove every rule so far, or a comment.
    ///
    /// # Errors
    /// If the line is no rule, if the pattern has a flaw, or if there are too many rules.
    pub fn line(self, line: &str) -> Result<Filter, FilterError> {
        self.byte_line(line.as_bytes())
    }

    /// Adds the lines of `input`, which errors call `name`. Lines that are empty or begin with `#` or `;` are
    /// comments.
    ///
    /// # Errors
    /// The errors of [`Filter::line`], with the number of the line, or the input cannot be read.
    pub fn lines(mut self, name: &str, input: impl Read + Send + 'static) -> Result<Filter, FilterError> {
        let mut lines = LineReader::new(Box::new(input), b'\n');
        let unreadable = |source| FilterError::Unreadable { file: name.to_owned(), source };
        while lines.advance().map_err(unreadable)? {
            let line = lines.line();
            // An editor's byte order mark is no part of the first rule.
            let line =
                if lines.number() == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
            let added = if lines.is_too_long() {
                Err(FilterError::no_rule(b"(too long)"))
            } else {
                self.byte_line(line)
            };
            self = added.map_err(|flaw| {
                let (file, line) = (name.to_owned(), lines.number());
                FilterError::Line { file, line, flaw: Box::new(flaw) }
            })?;
        }
        Ok(self)
    }

    fn byte_line(mut self, line: &[u8]) -> Result<Filter, FilterError> {
        match line.trim_ascii() {
            [] | [b'#' | b';', ..] => Ok(self),
            b"!" => {
                (self.includes, self.excludes, self.lines) = (Vec::new(), Vec::new(), Vec::new());
                Ok(self)
            }
            [sign @ (b'+' | b'-'), b' ', pattern @ ..] => {
                self.lines.push(Rule::new(*sign == b'+', pattern)?);
                self.counted()
            }
            other => Err(FilterError::no_rule(other)),
        }
    }

    fn counted(self) -> Result<Filter, FilterError> {
        if self.rules().count() > MOST_RULES { Err(FilterError::TooMany) } else { Ok(self) }
    }

    /// Returns the verdict on `file`. `now` is the time from which ages are measured; a file from the future is young.
    pub fn judge(&self, file: &Candidate<'_>, now: SystemTime) -> Verdict {
        let (is_admitted, rule) = self.decide(file.path.as_os_str().as_bytes());
        if !is_admitted {
            return Verdict::ExcludedByName { rule };
        }
        let is_small = self.min_bytes.is_some_and(|min| file.bytes < min);
        if is_small || self.max_bytes.is_some_and(|max| file.bytes > max) {
            return Verdict::ExcludedBySize;
        }
        // A file from the future has no age: it counts as young, and never as too old.
        let age = now.duration_since(file.modified).ok();
        let is_young = self.min_age.is_some_and(|min| age.is_none_or(|age| age < min));
        if is_young || self.max_age.is_some_and(|max| age.is_some_and(|age| age > max)) {
            return Verdict::ExcludedByAge;
        }
        Verdict::Admitted { rule }
    }

    /// Returns `true` if the rules admit the path relative to the source, whatever its size and age.
    pub fn admits_name(&self, path: &[u8]) -> bool {
        self.decide(path).0
    }

    /// Returns the rule that excludes everything below the folder `path`, which is relative to the source. Returns
    /// `None` if a file below may be admitted. `Some(None)` is the exclusion of all that no include rule matches.
    pub fn excludes_folder(&self, path: &[u8]) -> Option<Option<usize>> {
        let mut folder = units(path);
        folder.push(u32::from(b'/'));
        // The first rule that matches decides, as it does for a file.
        for (i, rule) in self.rules().enumerate() {
            if rule.is_include && !rule.is_folder && rule.glob.may_match_below(&folder) {
                return None;
            }
            if !rule.is_include && rule.glob.covers(&folder) {
                return Some(Some(i));
            }
        }
        (!self.includes.is_empty()).then_some(None)
    }

    /// Returns the rules in their order, as they were written, each with a sign.
    pub fn rule_texts(&self) -> impl Iterator<Item = &str> {
        self.rules().map(|rule| rule.text.as_str())
    }

    fn decide(&self, path: &[u8]) -> (bool, Option<usize>) {
        let path = units(path);
        let is_match = |rule: &Rule| !rule.is_folder && rule.glob.matches(&path);
        match self.rules().enumerate().find(|(_, rule)| is_match(rule)) {
            Some((i, rule)) => (rule.is_include, Some(i)),
            None => (self.includes.is_empty(), None),
        }
    }

    /// The kinds of rules apply in this order in rclone.
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.includes.iter().chain(&self.excludes).chain(&self.lines)
    }
}

impl Rule {
    fn new(is_include: bool, pattern: &[u8]) -> Result<Rule, FilterError> {
        let is_folder = is_include && pattern.ends_with(b"/");
        // The contents of an excluded folder are excluded.
        let suffix: &[u8] = if !is_include && pattern.ends_with(b"/") { b"**" } else { b"" };
        let text = shown(&String::from_utf8_lossy(pattern));
        let text_with_sign = format!("{} {text}", if is_include { '+' } else { '-' });
        match Glob::new(&[pattern, suffix].concat()) {
            Ok(glob) => Ok(Rule { is_include, is_folder, text: text_with_sign, glob }),
            Err(flaw) => Err(FilterError::Pattern { pattern: text, flaw }),
        }
    }
}

impl FilterError {
    fn no_rule(line: &[u8]) -> FilterError {
        FilterError::NoRule { line: shown(&String::from_utf8_lossy(line)) }
    }
}

/// Bounds the time per file.
const MOST_RULES: usize = 10_000;
