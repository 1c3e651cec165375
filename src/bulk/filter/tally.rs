//! The verdicts of a run, counted.

use super::rules::{Filter, Verdict};

/// The number of files for each verdict, and of files for each rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterTally {
    /// The files that were admitted.
    pub admitted: u64,
    /// The files that were excluded by name.
    pub excluded_by_name: u64,
    /// The files that were excluded by size.
    pub excluded_by_size: u64,
    /// The files that were excluded by age.
    pub excluded_by_age: u64,
    /// The folders that were not read, because everything below is excluded.
    pub excluded_folders: u64,
    hits: Vec<u64>,
}

impl FilterTally {
    /// Counts a verdict.
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Admitted { rule } => {
                self.admitted += 1;
                self.hit(rule);
            }
            Verdict::ExcludedByName { rule } => {
                self.excluded_by_name += 1;
                self.hit(rule);
            }
            Verdict::ExcludedBySize => self.excluded_by_size += 1,
            Verdict::ExcludedByAge => self.excluded_by_age += 1,
        }
    }

    /// Counts a folder that `rule` excludes.
    pub fn count_folder(&mut self, rule: Option<usize>) {
        self.excluded_folders += 1;
        self.hit(rule);
    }

    /// Returns the rules of `filter` that decided about no file, for a warning: they may be misspelled.
    pub fn unused<'a>(&self, filter: &'a Filter) -> impl Iterator<Item = &'a str> {
        let hits = self.hits.clone();
        let is_unused = move |i: usize| hits.get(i).is_none_or(|count| *count == 0);
        filter.rule_texts().enumerate().filter(move |(i, _)| is_unused(*i)).map(|(_, text)| text)
    }

    fn hit(&mut self, rule: Option<usize>) {
        let Some(rule) = rule else { return };
        if self.hits.len() <= rule {
            self.hits.resize(rule + 1, 0);
        }
        self.hits[rule] += 1;
    }
}
