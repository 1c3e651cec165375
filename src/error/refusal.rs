//! A refusal by the service.

use std::fmt;

use serde::Serialize;

use super::one_line::OneLine;

/// A refusal by the service: its problem document, bounded and without control characters.
///
/// See <https://docs.api.video/reference/errors>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem: the last path segment of its `type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// A short text for a person. The service may change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Details of this occurrence, or the start of a body that is not a problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The offending parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The single problems, if the service found several. These have no problems of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Refusal>,
}

impl Refusal {
    /// Returns `true` if the answer names no problem of the service: an error page, a redirect, or a problem
    /// document of another program.
    pub(super) fn is_from_intermediary(&self) -> bool {
        self.slug.is_none() && self.problems.iter().all(|problem| problem.slug.is_none())
    }

    pub(super) fn texts(&mut self) -> Box<dyn Iterator<Item = &mut String> + '_> {
        let own = [&mut self.slug, &mut self.title, &mut self.detail, &mut self.name];
        Box::new(own.into_iter().flatten().chain(self.problems.iter_mut().flat_map(Refusal::texts)))
    }
}

/// Writes one line: `the service answered 400 invalid-attribute on "language": The title. The detail`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answered {}", self.status)?;
        if let Some(slug) = &self.slug {
            write!(f, " {}", OneLine(slug))?;
        }
        if let Some(name) = &self.name {
            write!(f, " on \"{}\"", OneLine(name))?;
        }
        let mut before = ": ";
        for text in [&self.title, &self.detail].into_iter().flatten() {
            write!(f, "{before}{}", OneLine(text))?;
            before = " ";
        }
        Ok(())
    }
}
