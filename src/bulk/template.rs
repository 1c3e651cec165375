//! Templates for titles and metadata: `{stem}`, `{name}`, `{path}`, `{dir}` and `{index}`.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use super::entry::shown;

/// A text with names in braces, which are replaced for each file.
///
/// `{stem}` is the file's name without its last extension, `{name}` the name, `{path}` the path as it is given, `{dir}`
/// the path of the parent relative to the source (empty for a file directly in it), and `{index}` the number of the
/// file from 1. `{{` and `}}` stand for a brace.
///
/// ```
/// use ringlift::bulk::{Template, TemplateValues};
///
/// let template: Template = "{dir}: {stem} ({index})".parse()?;
/// let values = TemplateValues::new("/films/2024/beach.mp4".as_ref(), "2024/beach.mp4".as_ref(), 7);
/// assert_eq!(template.render(&values), "2024: beach (7)");
/// # Ok::<(), ringlift::bulk::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Stem,
    Name,
    Path,
    Dir,
    Index,
}

/// The values of a template for one file.
#[derive(Clone, Copy, Debug)]
pub struct TemplateValues<'a> {
    path: &'a Path,
    relative: &'a Path,
    index: u64,
}

impl<'a> TemplateValues<'a> {
    /// Creates the values of the file at `path`, whose path relative to the source is `relative`. `index` counts the
    /// files of the run from 1.
    pub fn new(path: &'a Path, relative: &'a Path, index: u64) -> TemplateValues<'a> {
        TemplateValues { path, relative, index }
    }
}

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A name that does not exist.
    #[error(
        "unknown name {{{name}}}; use {{stem}}, {{name}}, {{path}}, {{dir}} or {{index}}, and {{{{ for a brace"
    )]
    UnknownName {
        /// The name.
        name: String,
    },
    /// A brace without its partner.
    #[error("the brace at byte {at} has no partner; write {{{{ or }}}} for a brace")]
    LoneBrace {
        /// The position of the brace, from 1.
        at: usize,
    },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let (mut rest, mut plain) = (text, String::new());
        while let Some(at) = rest.find(['{', '}']) {
            let lone = || TemplateError::LoneBrace { at: text.len() - rest.len() + at + 1 };
            plain.push_str(&rest[..at]);
            let tail = &rest[at..];
            if tail.starts_with("{{") || tail.starts_with("}}") {
                plain.push_str(&tail[..1]);
                rest = &tail[2..];
                continue;
            }
            let end = tail.find('}').filter(|end| *end > 0).ok_or_else(lone)?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::named(&tail[1..end])?);
            rest = &tail[end + 1..];
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Template { parts })
    }
}

impl Template {
    /// Returns `true` if the text is the same for every file.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Returns the text for one file. Bytes of a path that are not UTF-8 become U+FFFD.
    pub fn render(&self, values: &TemplateValues<'_>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            let piece = match part {
                Part::Text(plain) => Some(OsStr::new(plain)),
                Part::Stem => values.path.file_stem(),
                Part::Name => values.path.file_name(),
                Part::Path => Some(values.path.as_os_str()),
                Part::Dir => values.relative.parent().map(Path::as_os_str),
                Part::Index => {
                    let _ = write!(text, "{}", values.index);
                    None
                }
            };
            text.push_str(&piece.unwrap_or_default().to_string_lossy());
        }
        text
    }
}

impl Part {
    fn named(name: &str) -> Result<Part, TemplateError> {
        match name {
            "stem" => Ok(Part::Stem),
            "name" => Ok(Part::Name),
            "path" => Ok(Part::Path),
            "dir" => Ok(Part::Dir),
            "index" => Ok(Part::Index),
            _ => Err(TemplateError::UnknownName { name: shown(name) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    fn rendered(text: &str, path: &str, relative: &str) -> String {
        let values = TemplateValues::new(path.as_ref(), relative.as_ref(), 3);
        text.parse::<Template>().unwrap().render(&values)
    }

    #[test]
    fn every_name_has_its_value() {
        let text = "{stem}|{name}|{path}|{dir}|{index}";
        assert_eq!(rendered(text, "/a/b/c.d.mp4", "b/c.d.mp4"), "c.d|c.d.mp4|/a/b/c.d.mp4|b|3");
        assert_eq!(rendered(text, "c.mp4", "c.mp4"), "c|c.mp4|c.mp4||3");
        assert_eq!(rendered(text, ".mp4", ".mp4"), ".mp4|.mp4|.mp4||3");
        assert_eq!(rendered("", "c", "c"), "");
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(rendered("{{{stem}}} {{index}}", "/a.mp4", "a.mp4"), "{a} {index}");
    }

    #[test]
    fn only_a_text_without_names_is_constant() {
        for (text, is_constant) in [("", true), ("a {{stem}}", true), ("{index}", false), ("a{dir}", false)] {
            assert_eq!(text.parse::<Template>().unwrap().is_constant(), is_constant, "{text}");
        }
    }

    #[test]
    fn values_are_not_templates() {
        assert_eq!(rendered("{stem}", "/{index}.mp4", "{index}.mp4"), "{index}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list() {
        let error = "{titel}".parse::<Template>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown name {titel}; use {stem}, {name}, {path}, {dir} or {index}, and {{ for a brace"
        );
        for (text, at) in [("a{", 2), ("a}b", 2), ("é{stem", 3), ("{stem}}", 7)] {
            assert_eq!(text.parse::<Template>(), Err(TemplateError::LoneBrace { at }), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_becomes_a_text() {
        let path = Path::new(OsStr::from_bytes(b"caf\xe9.mp4"));
        let template: Template = "{stem}".parse().unwrap();
        assert_eq!(template.render(&TemplateValues::new(path, path, 1)), "caf\u{fffd}");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_escaped_texts_stay_themselves(text in ".*") {
            let _ = text.parse::<Template>();
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(rendered(&escaped, "/a.mp4", "a.mp4"), text);
        }
    }
}
